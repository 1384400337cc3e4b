"""Gradual pruning in each of its forms, on models whose masks can be counted by hand."""

import json

import pytest
import torch
from torch import nn

import prune_schedule
from prune_core import ConfigError, PruneError, PruneWarning, load_masks
from prune_core.masking import PrunerModuleWrapper
from prune_core.testing import check_pruner
from prune_schedule import AGPPruner, ConstantPruner, GradualPruner, LinearPruner, OneCyclePruner

RULES = [{"sparsity": 0.8, "op_types": ["Linear"]}]
EPOCHS = [
    {
        "initial_sparsity": 0,
        "final_sparsity": 0.8,
        "start_epoch": 0,
        "end_epoch": 6,
        "frequency": 1,
        "op_types": ["default"],
    }
]
ON_250 = {
    AGPPruner: [0, 0.388, 0.624, 0.748, 0.792, 0.8],
    LinearPruner: [0, 0.16, 0.32, 0.48, 0.64, 0.8],
    ConstantPruner: [0.8] * 6,
}


def kept(pruner):
    return {name: int(mask["weight"].sum()) for name, mask in pruner.masks.items()}


def wrapped(model):
    return [name for name, m in model.named_modules() if isinstance(m, PrunerModuleWrapper)]


# --- round by round ---------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", ON_250)
def test_what_is_reached_in_each_round_of_250_weights(schedule, tape):
    pruner = schedule(tape, RULES, pruning_algorithm="smallest", total_iteration=5)
    seen = []
    pruner.run(finetune=lambda model: seen.append(1 - kept(pruner)["fc"] / 250))
    assert seen == pytest.approx(ON_250[schedule])
    assert [t["sparsities"]["fc"] for t in pruner.trials] == pytest.approx(ON_250[schedule])


def test_what_is_smallest_goes_first(tape):
    pruner = LinearPruner(tape, RULES, "smallest", 4)
    model, masks = pruner.compress()
    assert model is tape
    assert torch.equal(masks["fc"]["weight"].flatten(), torch.arange(250) >= 200)


def test_one_cycle_sweeps(tape):
    pruner = OneCyclePruner(tape, RULES, "smallest", 6)
    reached = [trial["sparsity"] for trial in pruner.run().trials]
    assert reached == sorted(reached)
    assert reached[0] == 0
    assert reached[-1] == 0.8


def test_any_function_is_a_curve(tape):
    pruner = GradualPruner(tape, RULES, "smallest", 2, curve=lambda p, i, f: f * p**2)
    assert [trial["sparsities"]["fc"] for trial in pruner.run().trials] == [0, 0.2, 0.8]


def test_any_class_is_an_algorithm(toys, tape):
    pruner = LinearPruner(tape, RULES, toys.Channels, 2)
    pruner.compress()
    assert kept(pruner) == {"fc": 2 * 25}


def test_the_iterative_form_of_older_releases(tape, tmp_path):
    calls = []

    def finetuner(model):
        calls.append("finetune")

    def evaluator(model):
        calls.append("evaluate")
        return 1.0 - len(calls) / 100

    pruner = AGPPruner(
        tape, RULES, "smallest", 5, tmp_path, True, finetuner, False, None, evaluator, {}
    )
    pruner.compress()
    assert calls == ["finetune", "evaluate"] * 6
    number, model, masks, score, config_list = pruner.get_best_result()
    assert number == 5
    assert score == pytest.approx(0.88)  # that of the last round, though the first had a better one
    assert not wrapped(model)
    assert int(model.fc.weight.count_nonzero()) == 50 == int(masks["fc"]["weight"].sum())
    assert config_list == [{"op_names": ["fc"], "op_types": ["Linear"], "total_sparsity": 0.8}]


def test_the_plain_names_of_functions(tape):
    calls = []
    pruner = GradualPruner(
        *(tape, [{"sparsity": 0.5, "op_types": ["Linear"]}], "smallest"),
        total_iteration=1,
        finetune=lambda model: calls.append("finetune"),
        evaluate=lambda model: calls.append("evaluate") or 1.0,
    )
    assert pruner.run().score == 1.0
    assert calls == ["finetune", "evaluate"] * 2


def test_the_folder_of_results(tape, tmp_path):
    AGPPruner(tape, RULES, "smallest", 2, log_dir=tmp_path).compress()
    assert not (tmp_path / "intermediate_result").exists()
    best = tmp_path / "best_result"
    assert int(load_masks(best / "masks.pth")["fc"]["weight"].sum()) == 50
    state = torch.load(best / "model.pth", weights_only=True)
    assert set(state) == {"fc.weight"}
    assert json.loads((best / "config_list.json").read_text())[0]["total_sparsity"] == 0.8
    assert len(json.loads((tmp_path / "trials.json").read_text())) == 3


def test_the_folder_of_all_rounds(make_tape, tmp_path):
    LinearPruner(
        make_tape(), RULES, "smallest", 2, log_dir=tmp_path, keep_intermediate_result=True
    ).compress()
    rounds = tmp_path / "intermediate_result"
    left = [int(load_masks(rounds / str(t) / "masks.pth")["fc"]["weight"].sum()) for t in range(3)]
    assert left == [250, 150, 50]


def test_further_arguments_reach_the_algorithm(tape):
    def backward(model):
        model(torch.eye(25)).square().sum().backward()

    for arguments in ({"pruning_params": {"calibrate": backward}}, {"calibrate": backward}):
        model = nn.Sequential(nn.Linear(25, 10))
        pruner = LinearPruner(model, RULES, "gradients", 2, **arguments)
        pruner.compress()
        assert kept(pruner) == {"0": 50}


def test_layers_keep_their_own_sparsities():
    model = nn.Sequential(nn.Linear(10, 10), nn.Linear(10, 10), nn.Linear(10, 10))
    rules = [
        {"sparsity": 0.5, "op_types": ["Linear"]},
        {"initial_sparsity": 0.2, "final_sparsity": 0.8, "op_names": ["1"]},
        {"exclude": True, "op_names": ["2"]},
    ]
    pruner = LinearPruner(model, rules, "smallest", 2)
    seen = []
    pruner.run(finetune=lambda model: seen.append(kept(pruner)))
    assert seen == [{"0": 100, "1": 80}, {"0": 75, "1": 50}, {"0": 50, "1": 20}]


def test_an_evaluation_that_fails_costs_a_score_and_not_the_run(tape):
    answers = iter([0.9, float("nan"), RuntimeError("no data"), 0.7])

    def evaluate(model):
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    pruner = LinearPruner(tape, RULES, "smallest", 3)
    with pytest.warns(PruneWarning, match="evaluate failed: "):
        result = pruner.run(evaluate=evaluate)
    assert [trial["score"] for trial in result.trials] == [0.9, None, None, 0.7]
    assert [trial["problem"] for trial in result.trials] == [
        *(None, "the score is nan", "RuntimeError: no data", None)
    ]
    assert result.complete
    assert result.score == 0.7


def test_training_that_fails_is_raised_and_the_model_is_whole(tape):
    pruner = LinearPruner(tape, RULES, "smallest", 3)

    def finetune(model):
        if pruner.sparsities["fc"] > 0.3:
            raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        pruner.run(finetune=finetune)
    assert wrapped(tape) == ["fc"]
    pruner.unwrap()
    assert not wrapped(tape)


def test_ctrl_c_goes_back_to_the_last_complete_round(tape):
    pruner = LinearPruner(tape, RULES, "smallest", 4)
    weights = {}

    def finetune(model):
        with torch.no_grad():
            model.fc.module.weight.add_(1.0)
        if len(pruner.trials) == 3:
            raise KeyboardInterrupt
        weights["fc"] = model.fc.module.weight.detach().clone()

    result = pruner.run(finetune=finetune)
    assert not result.complete
    assert result.sparsities == {"fc": 0.4}
    assert kept(pruner) == {"fc": 150}
    assert torch.equal(tape.fc.module.weight, weights["fc"])
    finished = pruner.run(finetune=lambda model: None)  # and it can go on from there
    assert finished.complete
    assert kept(pruner) == {"fc": 50}


def test_ctrl_c_before_anything_is_complete_is_raised(tape):
    def finetune(model):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        LinearPruner(tape, RULES, "smallest", 4).run(finetune=finetune)
    assert wrapped(tape) == ["fc"]


def test_each_round_begins_in_the_mode_of_the_first_and_without_gradients(tape):
    tape.eval()
    seen = []

    def finetune(model):
        seen.append((model.training, model.fc.module.weight.grad))
        model.train()
        model(torch.ones(1, 25)).sum().backward()

    LinearPruner(tape, RULES, "smallest", 2).run(finetune=finetune)
    assert seen == [(False, None)] * 3


# --- driven by training -----------------------------------------------------------------------


def test_ten_lines_of_an_older_script(make_tape):
    config_list = [{**EPOCHS[0], "end_epoch": 10}]
    model = make_tape()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-9, momentum=0.9, weight_decay=5e-4)
    pruner = AGPPruner(model, config_list, optimizer, pruning_algorithm="smallest")
    assert pruner.compress()[0] is model
    left = []
    for epoch in range(10):
        pruner.update_epoch(epoch)
        optimizer.zero_grad()
        model(torch.ones(2, 25)).sum().backward()
        optimizer.step()
        left.append(kept(pruner)["fc"])
    exact = [0.8 * (1 - (1 - t / 9) ** 3) for t in range(10)]
    assert left == [250 - int(s * 250 + 1e-9) for s in exact]
    assert left[-1] == 50


@pytest.mark.parametrize("form", ["position", "name", "both by position"])
def test_the_optimizer_is_given_in_any_way(form, tape):
    optimizer = torch.optim.SGD(tape.parameters(), lr=0.1)
    if form == "position":
        pruner = AGPPruner(tape, EPOCHS, optimizer, pruning_algorithm="smallest")
    elif form == "name":
        pruner = AGPPruner(tape, EPOCHS, optimizer=optimizer, pruning_algorithm="smallest")
    else:
        pruner = AGPPruner(tape, EPOCHS, optimizer, "smallest")
    assert pruner.optimizer is optimizer
    assert pruner.pruning_algorithm == "smallest"


def test_each_optimizer_step_counts(tape):
    optimizer = torch.optim.SGD(tape.parameters(), lr=0.0)
    rules = [{"sparsity": 0.8, "start_step": 1, "end_step": 8, "frequency": 3, "op_names": ["fc"]}]
    pruner = LinearPruner(tape, rules, optimizer, "smallest")
    pruner.compress()
    pruner.compress()  # counts nothing twice
    left = []
    for _ in range(9):
        tape(torch.ones(1, 25)).sum().backward()
        optimizer.step()
        left.append(kept(pruner)["fc"])
    assert left == [250, 250, 250, 150, 150, 150, 50, 50, 50]
    assert pruner.steps == 9


def test_a_pruner_that_starts_anew_no_longer_hears_the_optimizer(make_tape):
    first, second = make_tape(), make_tape()
    optimizer = torch.optim.SGD(first.parameters(), lr=0.0)
    rules = [{"sparsity": 0.8, "end_step": 2, "op_types": ["Linear"]}]
    pruner = LinearPruner(first, rules, optimizer, "smallest")
    pruner.compress()
    pruner.reset(second, rules)
    optimizer.step()
    assert pruner.steps == 0
    assert not wrapped(first)


def test_epochs_that_are_left_out_are_made_up_for(tape):
    pruner = LinearPruner(tape, [{**EPOCHS[0], "frequency": 2}], pruning_algorithm="smallest")
    pruner.compress()
    left = {}
    for epoch in (0, 1, 5, 2, 9):  # 2 comes too late to mean anything
        pruner.update_epoch(epoch)
        left[epoch] = kept(pruner)["fc"]
    assert left == {0: 250, 1: 250, 5: 50, 2: 50, 9: 50}


def test_epochs_and_steps_in_one_config():
    model = nn.Sequential(nn.Linear(10, 10), nn.Linear(10, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    rules = [
        {"sparsity": 0.5, "end_epoch": 2, "op_names": ["0"]},
        {"sparsity": 0.8, "end_step": 3, "op_names": ["1"]},
    ]
    pruner = LinearPruner(model, rules, optimizer, "smallest")
    pruner.compress()
    optimizer.step()
    assert kept(pruner) == {"0": 100, "1": 60}
    pruner.update_epoch(1)
    assert kept(pruner) == {"0": 50, "1": 60}


def test_dense_weights_survive_and_an_optimizer_goes_on(tape):
    before = tape.fc.weight
    dense = before.detach().clone()
    pruner = LinearPruner(tape, EPOCHS, pruning_algorithm="smallest")
    pruner.compress()
    for epoch in range(6):
        pruner.update_epoch(epoch)
    assert tape.fc.module.weight is before
    assert torch.equal(before, dense)
    assert int(tape.fc.weight.count_nonzero()) == 50


# --- mistakes ---------------------------------------------------------------------------------

MISTAKES = {
    "does not say when its sparsity is reached": ([{"sparsity": 0.5}], {}),
    "counts both epochs and steps": ([{"sparsity": 0.5, "end_epoch": 3, "end_step": 3}], {}),
    "has 'start_epoch' but no 'end_epoch'": ([{"sparsity": 0.5, "start_epoch": 3}], {}),
    "'initial_sparsity' is 0.6, more than the final sparsity 0.5": (
        [{"final_sparsity": 0.5, "initial_sparsity": 0.6, "end_epoch": 2}],
        {},
    ),
    "has 'end_epoch', and total_iteration is 4": (
        [{"sparsity": 0.5, "end_epoch": 2}],
        {"total_iteration": 4},
    ),
    "total_iteration is 0; it must be a whole number of at least 1": (
        [{"sparsity": 0.5}],
        {"total_iteration": 0},
    ),
    "says how much to prune more than once": (
        [{"sparsity": 0.5, "final_sparsity": 0.5, "end_epoch": 2}],
        {},
    ),
    "unknown key 'end_epohc'. Did you mean 'end_epoch'": ([{"sparsity": 0.5, "end_epohc": 2}], {}),
    "finetune is 3; it must be a function": (
        [{"sparsity": 0.5}],
        {"total_iteration": 1, "finetuner": 3},
    ),
    "stateful has 'model', which is kept anyway": (
        [{"sparsity": 0.5, "end_epoch": 2}],
        {"stateful": {"model": nn.Linear(1, 1)}},
    ),
}


@pytest.mark.parametrize("said", MISTAKES)
def test_a_mistake_is_named_and_the_model_untouched(said, tape):
    config_list, arguments = MISTAKES[said]
    config_list = [{**entry, "op_types": ["Linear"]} for entry in config_list]
    with pytest.raises(ConfigError) as caught:
        LinearPruner(tape, config_list, pruning_algorithm="smallest", **arguments)
    assert said in str(caught.value)
    assert not wrapped(tape)


def test_arguments_given_twice_or_too_many(tape):
    with pytest.raises(TypeError, match="multiple values for argument 'pruning_algorithm'"):
        AGPPruner(tape, RULES, "smallest", pruning_algorithm="channels")
    optimizer = torch.optim.SGD(tape.parameters(), lr=0.1)
    with pytest.raises(TypeError, match="by position, and got 1 more"):
        AGPPruner(tape, RULES, optimizer, "smallest", 5)


def test_speedup_makes_the_result_small_and_leaves_the_model(small_net):
    rules = [{"sparsity": 0.5, "op_names": ["0", "2"]}]
    example = torch.randn(2, 3, 6, 6)
    pruner = LinearPruner(small_net, rules, "channels", 2, speedup=True, dummy_input=example)
    with pytest.warns(PruneWarning, match="those of '2': the model returns it"):
        pruner.compress()
    with pytest.warns(PruneWarning, match="the model returns it"):
        _, model, masks, _, _ = pruner.get_best_result()
    assert model[0].weight.shape[0] == 4
    assert not masks.get("0")
    assert small_net[0].module.weight.shape[0] == 8
    torch.testing.assert_close(model(example), small_net(example))


def test_speedup_needs_an_input(tape):
    with pytest.raises(ConfigError, match="dummy_input is missing"):
        AGPPruner(tape, RULES, "smallest", 5, speedup=True)


def test_each_way_of_running_says_which_is_meant(make_tape):
    with pytest.raises(PruneError, match="call compress\\(\\) and train"):
        LinearPruner(make_tape(), EPOCHS, pruning_algorithm="smallest").run()
    pruner = LinearPruner(make_tape(), RULES, "smallest", 3)
    with pytest.raises(PruneError, match="has total_iteration=3"):
        pruner.update_epoch(1)
    with pytest.raises(PruneError, match="no result yet"):
        pruner.get_best_result()


def test_an_algorithm_that_is_none(tape):
    with pytest.raises(ConfigError, match="pruning_algorithm is 7"):
        LinearPruner(tape, RULES, 7, 3)
    with pytest.raises(ConfigError, match="derives from prune_core.Pruner"):
        LinearPruner(tape, RULES, lambda model, config_list: object(), 3)
    assert not wrapped(tape)


@pytest.mark.parametrize("schedule", [AGPPruner, LinearPruner, ConstantPruner, OneCyclePruner])
@pytest.mark.parametrize(
    ("algorithm", "granularity"), [("smallest", "weights"), ("channels", "channels")]
)
def test_it_keeps_what_every_pruner_promises(schedule, algorithm, granularity):
    check_pruner(schedule, pruning_algorithm=algorithm, total_iteration=3, granularity=granularity)


def test_names_are_imported_when_they_are_used():
    assert set(prune_schedule.__all__) <= set(dir(prune_schedule))
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        prune_schedule.nothing  # noqa: B018
