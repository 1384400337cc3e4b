"""AutoCompress: rounds of search and training, and models that get smaller in between."""

import pytest
import torch
from torch import nn

from prune_core import ConfigError, PruneWarning, unwrap
from prune_core.masking import PrunerModuleWrapper
from prune_core.testing import check_pruner
from prune_schedule import AutoCompressPruner

RULES = [{"sparsity": 0.5, "op_types": ["Conv2d"]}]
X = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def net():
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU()),
        *(nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.BatchNorm2d(16), nn.ReLU()),
        *(nn.Conv2d(16, 24, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        nn.Linear(24, 4),
    )


def score(model):
    model.eval()  # a normalisation that trains would be another one after each evaluation
    with torch.no_grad():
        return -model(X).square().mean().item()


def train(model):
    """One step of descent, on labels that are drawn anew each time."""
    model.train()
    model.zero_grad()
    nn.functional.cross_entropy(model(X), torch.randint(4, (4,))).backward()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter -= 0.05 * parameter.grad


QUICK = {
    "num_iterations": 2,
    "cool_down_rate": 0.5,
    "admm_num_iterations": 2,
    "admm_training_epochs": 1,
}


def auto(model=None, rules=RULES, **arguments):
    arguments = {
        "finetune": train,
        "evaluate": score,
        "pruning_algorithm": "units",
        "dummy_input": X,
        **QUICK,
        **arguments,
    }
    return AutoCompressPruner(model or net(), rules, **arguments)


def test_each_round_takes_the_same_part_of_what_is_left_and_removes_it():
    model = net()
    pruner = auto(model)
    result = pruner.run()
    # 1 − √½ = 29.3 % after the first round, and half after the second
    assert [t["sparsity"] for t in result.trials] == pytest.approx([0.293, 0.5], abs=0.08)
    assert [len(search) for search in pruner.searches] == [5, 5]
    layers = unwrap(model)
    assert layers[0].out_channels == layers[3].groups == layers[6].in_channels < 16
    weights = sum(layers[n].weight.numel() for n in (0, 3, 6))
    dense = 16 * 27 + 16 * 9 + 16 * 24
    assert 1 - weights / dense == pytest.approx(result.trials[-1]["sparsity"])
    assert result.score == score(model)
    assert model(X).shape == (4, 4)


@pytest.mark.parametrize("seed", [20261121, 2**70])
def test_any_whole_number_is_a_seed(seed):
    assert auto(seed=seed).run().complete


def test_a_target_is_reached_by_the_last_round():
    result = auto(rules=[{"op_types": ["Conv2d"]}], target={"flops": 0.5}).run()
    first, last = (trial["left"]["flops"] for trial in result.trials)
    assert last <= 0.5 < first <= 0.5**0.5


def test_without_an_input_masks_are_kept_and_grow():
    model, masks = net(), []
    pruner = auto(
        model,
        dummy_input=None,
        pruning_algorithm="channels",
        finetuner=lambda model: masks.append(
            {n: m["weight"].clone() for n, m in pruner.masks.items()}
        ),
    )
    result = pruner.run()
    first, last = masks
    assert not any((last[name] & ~first[name]).any() for name in last)
    assert [t["sparsity"] for t in result.trials] == pytest.approx([0.293, 0.5], abs=0.08)
    assert model[0].module.out_channels == 16
    assert all(torch.equal(result.masks[n]["weight"], last[n]) for n in last)


def test_the_call_of_the_first_releases(tmp_path):
    pytest.importorskip("optuna", reason="experiment_data_dir keeps an Optuna study")
    seen = []

    def trainer(model, optimizer, criterion, epoch, callback):
        seen.append(epoch)
        optimizer.zero_grad()
        criterion(model(X), torch.zeros(4, dtype=torch.long)).backward()
        callback()
        optimizer.step()

    pruner = AutoCompressPruner(
        net(),
        RULES,
        trainer=trainer,
        evaluator=score,
        dummy_input=X,
        num_iterations=2,
        optimize_mode="maximize",
        base_algo="units",
        cool_down_rate=0.5,
        admm_num_iterations=2,
        admm_training_epochs=1,
        experiment_data_dir=tmp_path,
    )
    model, _ = pruner.compress()
    assert seen == [0, 1, 0, 1]
    assert isinstance(model[0], PrunerModuleWrapper)
    number, small, masks, found, _ = pruner.get_best_result()
    assert number == 1
    assert small[0].out_channels < 16
    assert masks == {}
    assert found == pruner.trials[-1]["score"]
    assert (tmp_path / "best_result" / "model.pth").exists()


def test_the_call_of_later_releases():
    optimizers = []

    def trainer(model, optimizer, criterion):
        optimizers.append(optimizer)
        optimizer.zero_grad()
        criterion(model(X), torch.zeros(4, dtype=torch.long)).backward()
        optimizer.step()

    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    pruner = AutoCompressPruner(
        model,
        RULES,
        2,
        {
            "trainer": trainer,
            "traced_optimizer": optimizer,
            "criterion": nn.functional.cross_entropy,
            "iterations": 1,
            "training_epochs": 1,
        },
        {"evaluator": score, "cool_down_rate": 0.5, "pruning_algorithm": "units"},
        speedup=True,
        dummy_input=X,
    )
    pruner.compress()
    assert optimizers == [optimizer] * 2
    assert unwrap(model)[0].out_channels < 16


# --- what goes wrong --------------------------------------------------------------------------


def test_a_trainer_that_raises_leaves_a_model_that_can_be_unwrapped():
    model, calls = net(), []

    def fails(model):
        calls.append(1)
        if len(calls) == 3:  # in the second round, when the model has been made smaller
            raise RuntimeError("out of memory")
        train(model)

    pruner = auto(model, finetune=fails)
    with pytest.raises(RuntimeError, match="out of memory"):
        pruner.run()
    pruner.unwrap()
    assert not any(isinstance(module, PrunerModuleWrapper) for module in model.modules())
    assert model(X).shape == (4, 4)
    assert not any(p._backward_hooks for p in model.parameters())


def test_an_evaluation_that_fails_costs_a_trial():
    answers = iter([1.0, float("nan"), 1.0])
    pruner = auto(evaluate=lambda model: next(answers, 0.5))
    with pytest.warns(PruneWarning, match="the score is nan"):
        result = pruner.run()
    assert pruner.searches[0][1]["problem"] == "the score is nan"
    assert result.complete


@pytest.mark.parametrize("where", ["finetune", "evaluate"])
def test_ctrl_c_ends_with_the_last_complete_round(where):
    calls, function = [], {"finetune": train, "evaluate": score}[where]

    def stops(model):
        calls.append(1)
        if len(calls) == {"finetune": 4, "evaluate": 9}[where]:
            raise KeyboardInterrupt
        return function(model)

    model = net()
    pruner = auto(model, **{where: stops})
    result = pruner.run()
    assert not result.complete
    assert len(result.trials) == 1
    assert score(model) == result.trials[0]["score"]


@pytest.mark.parametrize("kept", [None, "checkpoint", "experiment_data_dir"])
@pytest.mark.parametrize("last", [False, True])
def test_ctrl_c_where_the_model_is_small_already_goes_back_as_well(last, kept, tmp_path):
    def compress(where, stop_at=None):
        model, calls = net(), []

        def stops(model):
            calls.append(1)
            if len(calls) == stop_at:
                raise KeyboardInterrupt
            return score(model)

        pruner = auto(model, evaluate=stops, **({} if kept is None else {kept: tmp_path / where}))
        if stop_at is None:
            return pruner, pruner.run()
        if last:
            result = pruner.run()
            assert len(result.trials) == 1
            assert score(model) == result.score
        else:
            with pytest.raises(KeyboardInterrupt):
                pruner.run()
            assert score(model) == score(net())
        return pruner, pruner.run()

    whole, result = compress("whole")
    evaluations = [len(search) + 1 for search in whole.searches]
    again, found = compress("run", sum(evaluations[: 1 + last]))
    assert [t["score"] for t in found.trials] == [t["score"] for t in result.trials]
    weights, expected = again.bound_model.state_dict(), whole.bound_model.state_dict()
    assert all(torch.equal(weights[name], value) for name, value in expected.items())


def test_ctrl_c_while_a_pruner_is_made(toys):
    made = []

    class Units(toys.Units):
        def __init__(self, *arguments, **named):
            super().__init__(*arguments, **named)
            made.append(1)
            if len(made) == 2:
                raise KeyboardInterrupt

    model = net()
    pruner = auto(model, pruning_algorithm=Units)
    with pytest.raises(KeyboardInterrupt):
        pruner.run()
    assert score(model) == score(net())
    assert pruner.run().complete


@pytest.mark.parametrize("kept", ["checkpoint", "experiment_data_dir"])
@pytest.mark.parametrize("small", [True, False])
@pytest.mark.parametrize("stop_at", [2, 6, 8, 12])
def test_it_goes_on_where_it_was(kept, small, stop_at, tmp_path):
    if kept == "experiment_data_dir":
        pytest.importorskip("optuna", reason="experiment_data_dir keeps an Optuna study")

    def run(place, calls=10_000):
        left = iter(range(calls))

        def counted(function):
            def call(model):
                if next(left, None) is None:
                    raise SystemExit
                return function(model)

            return call

        model = net()
        how = {} if small else {"dummy_input": None, "pruning_algorithm": "channels"}
        pruner = auto(
            model, finetune=counted(train), evaluate=counted(score), **{kept: place}, **how
        )
        return pruner.run(), {name: value.clone() for name, value in model.state_dict().items()}

    whole, expected = run(tmp_path / "whole")
    with pytest.raises(SystemExit):
        run(tmp_path / "run", stop_at)
    torch.manual_seed(99)
    again, found = run(tmp_path / "run")
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in found)
    assert [t["score"] for t in again.trials] == [t["score"] for t in whole.trials]


def narrow():
    return nn.Sequential(
        *(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.Conv2d(5, 4, 3)),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
    )


@pytest.mark.parametrize(
    ("said", "arguments"),
    {
        "whose admm is .*0.25": {"row": 0.25},
        "whose admm is .*'iterations': 5": {"admm_num_iterations": 5},
        "whose search is .*0.6": {"cool_down_rate": 0.6},
        "whose weights is .*; here it is": {"model": narrow},
    }.items(),
)
def test_a_checkpoint_of_another_run_is_refused(said, arguments, tmp_path):
    arguments = dict(arguments)
    path = tmp_path / "run.pt"
    auto(num_iterations=1, checkpoint=path).run()
    model = arguments.pop("model", net)()
    with pytest.raises(ConfigError, match=said):
        auto(model, num_iterations=1, checkpoint=path, **arguments).run()


@pytest.mark.parametrize(
    ("said", "arguments"),
    {
        "searches for what scores best": {"evaluate": None},
        "trains the model: give finetune=": {"finetune": None},
        "total_iteration is 0": {"num_iterations": 0},
        "speedup is True and dummy_input is missing": {"speedup": True, "dummy_input": None},
        "give dummy_input=": {"target": {"flops": 0.5}, "dummy_input": None},
    }.items(),
)
def test_a_mistake_is_named(said, arguments):
    model = net()
    with pytest.raises(ConfigError) as caught:
        auto(model, **arguments)
    assert said in str(caught.value)
    assert isinstance(model[0], nn.Conv2d)


def test_a_state_that_is_none():
    with pytest.raises(ConfigError, match="The state has no 'done'"):
        auto().load_state_dict({})


def test_it_keeps_what_every_pruner_promises():
    check_pruner(
        AutoCompressPruner,
        pruning_algorithm="channels",
        finetune=lambda model: None,
        evaluate=lambda model: 1.0,
        **QUICK,
        skip=["sparsity"],  # which is that of all layers together
    )
