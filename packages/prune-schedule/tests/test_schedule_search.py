"""Searches: budgets kept, histories replayed, evaluators that fail."""

import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from prune_core import ConfigError, PruneError, PruneWarning
from prune_core.amount import number_to_prune
from prune_core.masking import PrunerModuleWrapper
from prune_core.sparsities.pieces import Piece
from prune_core.sparsities.weights import WeightBudget
from prune_core.testing import check_pruner
from prune_schedule import SimulatedAnnealingPruner

pytest.importorskip("optuna", reason="searches are kept in Optuna studies")

RULES = [{"sparsity": 0.5, "op_types": ["Linear"]}]


def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(20, 40), nn.ReLU(), nn.Linear(40, 30), nn.ReLU(), nn.Linear(30, 10)
    )


def closeness(wanted):
    """Return an evaluation that is best where layers have the sparsities that it wants."""

    def evaluate(model):
        found = [1 - m.masks["weight"].float().mean().item() for m in model if hasattr(m, "masks")]
        return -sum((a - b) ** 2 for a, b in zip(found, wanted, strict=True))

    return evaluate


def anneal(model=None, rules=RULES, **arguments):
    arguments = {"pruning_algorithm": "smallest", **arguments}
    return SimulatedAnnealingPruner(model or net(), rules, **arguments)


# --- budgets ----------------------------------------------------------------------------------


def weights(shares, sizes, total, caps, floors=None, pieces=None):
    """Fit sparsities to a budget of the weights of all layers."""
    budget = WeightBudget([(list(sizes), total)], sizes, caps, pieces)
    return budget, budget.fitted(shares, floors or dict.fromkeys(sizes, 0.0))


def test_a_budget_by_hand():
    # 200 weights, half of them to go: b may lose 60 of its 100, so a loses 40.
    shares, sizes = {"a": 1, "b": 3}, {"a": 100, "b": 100}
    assert weights(shares, sizes, 0.5, {"a": 0.9, "b": 0.6})[1] == {"a": 0.4, "b": 0.6}
    assert weights(shares, sizes, 0.5, {"a": 0.9, "b": 0.9})[1] == {"a": 0.25, "b": 0.75}
    floors = {"a": 0.3, "b": 0.0}
    assert weights(shares, sizes, 0.2, {"a": 0.9, "b": 0.9}, floors)[1] == {"a": 0.3, "b": 0.1}


def test_a_budget_of_whole_channels_by_hand():
    # Filters of 10 and of 30 weights, 4 and 8 of them: of 280 weights 140 are to go. The same
    # ratio of both is 2 and 4 filters, 20 + 120 weights.
    sizes = {"a": 40, "b": 240}
    pieces = [Piece(4, {"a": 10}), Piece(8, {"b": 30})]
    caps = {"a": 0.99, "b": 0.99}
    equal = {"a": 1, "b": 1}
    assert weights(equal, sizes, 0.5, caps, pieces=pieces)[1] == {"a": 0.5, "b": 0.5}
    # 126 are to go: 45 % would be 1 and 3 filters, 100 weights. At 50 % both get another one, and
    # that of b is enough.
    budget, plan = weights(equal, sizes, 0.45, caps, pieces=pieces)
    assert plan == {"a": 0.25, "b": 0.5}
    assert budget.left(plan) == {"entry 0": 1 - 130 / 280}
    # One layer alone: 30 weights of b are one filter, and 40 are two.
    nothing = {"a": 0.0, "b": 0.0}
    assert budget.reduced(nothing, ["b"], "entry 0", 250 / 280) == {"a": 0.0, "b": 1 / 8}
    assert budget.reduced(nothing, ["b"], "entry 0", 240 / 280) == {"a": 0.0, "b": 2 / 8}
    assert budget.reduced(nothing, ["a"], "entry 0", 240 / 280) is None


@given(
    layers=st.lists(
        st.tuples(st.floats(0, 1), st.integers(1, 40), st.integers(1, 50), st.floats(0.1, 0.99)),
        min_size=1,
        max_size=8,
    ),
    part=st.floats(0, 0.999),
)
def test_a_budget_is_met_within_a_piece_and_no_cap_is_passed(layers, part):
    names = [str(i) for i in range(len(layers))]
    shares, parts, each, caps = (
        dict(zip(names, column, strict=True)) for column in zip(*layers, strict=True)
    )
    pieces = [Piece(parts[n], {n: each[n]}) for n in names]
    sizes = {n: parts[n] * each[n] for n in names}
    everything = sum(sizes.values())
    most = sum(number_to_prune(caps[n], parts[n]) * each[n] for n in names)
    total = part * most / everything
    budget, found = weights(shares, sizes, total, caps, pieces=pieces)
    masked = sum(piece.masked(found) * each[n] for n, piece in zip(names, pieces, strict=True))
    wanted = number_to_prune(total, everything)
    assert wanted <= masked < wanted + max(each.values())
    assert all(-1e-9 <= found[n] <= caps[n] + 1e-9 for n in names)
    assert budget.left(found)["entry 0"] <= budget.target["entry 0"] + 1e-9


def test_a_budget_that_caps_do_not_allow():
    with pytest.raises(ConfigError, match="may lose 60.0% .* 70.0% is asked for"):
        weights({"a": 1}, {"a": 10}, 0.7, {"a": 0.6})
    # 99 % of four filters are three.
    with pytest.raises(ConfigError, match="may lose 75.0% .* in whole channels .* 80.0%"):
        weights({"a": 1}, {"a": 40}, 0.8, {"a": 0.99}, pieces=[Piece(4, {"a": 10})])


# --- the search -------------------------------------------------------------------------------


def test_it_finds_better_than_uniform_and_keeps_the_budget():
    pruner = anneal(evaluator=closeness([0.2, 0.6, 0.65]))
    result = pruner.run()
    uniform, *others = result.trials
    assert uniform["sparsities"] == {"0": 0.5, "2": 0.5, "4": 0.5}
    assert result.score > uniform["score"]
    assert result.score == max(trial["score"] for trial in result.trials)
    for trial in others:
        assert trial["sparsity"] == pytest.approx(0.5, abs=0.002)
        assert trial["sparsity"] <= 0.5
    kept = sum(int(mask["weight"].sum()) for mask in result.masks.values())
    assert kept == pytest.approx(2300 / 2, abs=3)
    assert result.complete


def test_the_number_of_trials_is_known():
    # 100 · 0.9^16 is the first temperature below 20; two trials begin the search
    pruner = anneal(evaluator=lambda model: 1.0)
    assert pruner.length == 18 == len(pruner.run().trials)


def test_a_score_can_be_minimised():
    good = closeness([0.2, 0.6, 0.65])
    up = anneal(evaluator=good).run()
    down = anneal(evaluator=lambda model: -good(model), optimize_mode="minimize").run()
    assert down.score == -up.score
    assert down.sparsities == up.sparsities


def test_entries_keep_budgets_of_their_own():
    rules = [
        {"sparsity": 0.3, "op_names": ["0"]},
        {"sparsity": 0.6, "op_names": ["2", "4"], "max_sparsity_per_layer": 0.7},
    ]
    for trial in anneal(rules=rules, evaluator=lambda model: 1.0).run().trials:
        planned = trial["sparsities"]
        assert planned["0"] == 0.3
        masked = number_to_prune(planned["2"], 1200) + number_to_prune(planned["4"], 300)
        assert masked == 900
        assert max(planned.values()) <= 0.7


def test_the_call_of_older_releases(tmp_path):
    pruner = SimulatedAnnealingPruner(
        net(),
        RULES,
        evaluator=closeness([0.5, 0.5, 0.5]),
        base_algo="smallest",
        cool_down_rate=0.5,
        experiment_data_dir=tmp_path,
    )
    model, _ = pruner.compress()
    assert isinstance(model[0], PrunerModuleWrapper)
    number, plain, _, score, config_list = pruner.get_best_result()
    assert score == pruner.trials[number]["score"]
    assert isinstance(plain[0], nn.Linear)
    assert [entry["op_names"] for entry in config_list] == [["0"], ["2"], ["4"]]
    assert (tmp_path / "best_result" / "masks.pth").exists()
    assert len(json.loads((tmp_path / "trials.json").read_text())) == pruner.length


def test_the_calls_of_later_releases(tmp_path):
    model = net()
    pruner = SimulatedAnnealingPruner(
        *(model, RULES, closeness([0.5, 0.5, 0.5]), 100, 80, 0.9, 0.35, "smallest", {}),
        *(tmp_path, False, None, False, None),
    )
    assert pruner.length == 5
    pruner.compress()
    assert (tmp_path / "best_result" / "masks.pth").exists()
    named = SimulatedAnnealingPruner(
        model=net(),
        config_list=RULES,
        evaluate=closeness([0.5, 0.5, 0.5]),
        start_temperature=100,
        stop_temperature=80,
        pruning_algorithm="smallest",
        pruning_params={},
    )
    named.compress()
    assert named.sparsities == pruner.sparsities
    with pytest.warns(PruneWarning, match="keep_intermediate_result=True has no effect"):
        anneal(keep_intermediate_result=True)
    with pytest.raises(ConfigError, match="speedup is True and dummy_input is missing"):
        anneal(speedup=True)


def test_speedup_makes_the_result_small_and_leaves_the_model():
    model = net()
    pruner = anneal(
        model,
        [{**RULES[0], "op_names": ["0", "2"]}],
        evaluator=lambda model: 1.0,
        pruning_algorithm="channels",
        speedup=True,
        dummy_input=torch.rand(2, 20),
    )
    small, masks = pruner.compress()
    again = pruner.get_best_result()[1]
    for made in (small, again):
        assert (made[0].out_features, made[2].out_features) == (20, 15)
    assert not masks
    assert model[0].module.out_features == 40


def test_a_search_with_speedup_scores_what_removal_will_leave():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 2)).eval()
    nn.init.uniform_(model[1].bias, 1, 2)  # what a masked channel would still send on
    x = torch.rand(4, 4)
    seen = []

    def evaluate(model):
        seen.append(model(x).detach())
        return 1.0

    pruner = anneal(
        model,
        [{"sparsity": 0.5, "op_names": ["0"]}],
        evaluator=evaluate,
        pruning_algorithm="channels",
        speedup=True,
        dummy_input=x,
        cool_down_rate=0.5,
    )
    small, _ = pruner.compress()
    assert small[0].out_features == 4
    torch.testing.assert_close(small(x), seen[0])


def test_a_finetuner_trains_in_each_trial_and_the_best_keeps_what_it_learnt():
    def search(folder=None, stop_after=100):
        model, tuned, left = net(), [], iter(range(stop_after))

        def finetune(model):
            weight = model[0].module.weight
            tuned.append(weight[0, 0].item())
            with torch.no_grad():
                weight.add_(torch.rand(()))

        def evaluate(model):
            if next(left, None) is None:
                raise KeyboardInterrupt
            return model[0].module.weight.mean().item()

        pruner = anneal(
            model, evaluate=evaluate, finetune=finetune, cool_down_rate=0.7, checkpoint=folder
        )
        result = pruner.run()
        return pruner, result, tuned, evaluate

    before = net()[0].weight[0, 0].item()
    pruner, result, tuned, evaluate = search()
    assert tuned == [before] * pruner.length
    assert result.score == max(trial["score"] for trial in result.trials)
    assert evaluate(pruner.bound_model) == result.score
    weights = {n: value.clone() for n, value in pruner.bound_model.state_dict().items()}
    # What has been found does not change what a search is that goes through it once more.
    assert pruner.run().score == result.score
    again = pruner.bound_model.state_dict()
    assert all(torch.equal(again[name], value) for name, value in weights.items())

    # One that is stopped ends with what the best so far was tuned to, and goes on from the start.
    stopped, result, *_ = search(stop_after=4)
    assert not result.complete
    assert stopped.bound_model[0].module.weight.mean().item() == result.score
    stopped.run(lambda model: model[0].module.weight.mean().item())
    found = stopped.bound_model.state_dict()
    assert all(torch.equal(found[name], value) for name, value in weights.items())


@pytest.mark.parametrize("seed", [-1, 20261121, 2**70])
def test_any_whole_number_is_a_seed(seed):
    evaluate = closeness([0.2, 0.6, 0.65])
    first, again = (anneal(evaluator=evaluate, seed=seed).run() for _ in range(2))
    assert first.sparsities == again.sparsities


def test_weights_are_never_changed():
    model = net()
    before = [p.detach().clone() for p in model.parameters()]
    anneal(model, evaluator=closeness([0.2, 0.6, 0.65])).run()
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_it_keeps_what_every_pruner_promises():
    check_pruner(
        SimulatedAnnealingPruner,
        pruning_algorithm="channels",
        evaluator=lambda model: 1.0,
        cool_down_rate=0.5,
        skip=["sparsity"],  # which is that of all layers together
    )


# --- evaluators that fail ---------------------------------------------------------------------


def hangs(model):
    time.sleep(60)


def test_a_trial_that_fails_is_told_and_the_search_goes_on():
    answers = iter(
        [lambda: 0.5, lambda: float("nan"), lambda: 1 / 0, lambda: time.sleep(60), lambda: 0.9]
    )

    def evaluate(model):
        return next(answers, lambda: 0.1)()

    pruner = anneal(evaluator=evaluate, cool_down_rate=0.6, trial_timeout=0.2)
    with pytest.warns(PruneWarning, match="evaluate failed"):
        result = pruner.run()
    assert [trial["problem"] for trial in result.trials[:5]] == [
        None,
        "the score is nan",
        "ZeroDivisionError: division by zero",
        "TimeoutError: no result after 0.2 s",
        None,
    ]
    assert result.score == 0.9
    assert result.complete


BAD = {
    "None": (lambda model: None, "returned None instead of a number; does it lack a `return`"),
    "nan": (lambda model: float("nan"), "the score is nan"),
    "inf": (lambda model: -float("inf"), "the score is -inf"),
    "bool": (lambda model: True, "returned True instead of a number"),
    "several": (lambda model: torch.ones(3), r"a Tensor of shape \(3,\) instead of a number"),
    "truth": (lambda model: torch.tensor(True), "returned True instead of a number"),
    "array": (lambda model: np.ones(2), r"a ndarray of shape \(2,\) instead of a number"),
    "text": (lambda model: "0.9", "returned '0.9' instead of a number"),
    "dict": (lambda model: {"acc": 0.9}, r"returned {'acc': 0.9} instead of a number"),
    "error": (lambda model: 1 / 0, "ZeroDivisionError: division by zero"),
}


@pytest.mark.parametrize("returned", BAD)
def test_the_first_trial_stops_a_search_that_has_no_score(returned):
    evaluate, said = BAD[returned]
    calls = []

    def counted(model):
        calls.append(1)
        return evaluate(model)

    pruner = anneal(evaluator=counted)
    with pytest.raises(PruneError, match=f"The first trial has no score .*{said}") as caught:
        pruner.run()
    assert len(calls) == 1
    assert (caught.value.__cause__ is None) == (returned in ("nan", "inf"))
    assert not any(w.masked_count("weight") for w in pruner.get_modules_wrapper().values())
    # What was wrong can be put right, and the same search goes on.
    assert pruner.run(lambda model: torch.tensor(0.5)).score == 0.5


def test_a_number_of_any_library_is_a_score():
    for number in (
        1,
        0.5,
        np.float32(0.5),
        np.ones(1),
        torch.tensor([0.5]),
        nn.Parameter(torch.ones(())),
    ):
        assert anneal(evaluator=lambda model, n=number: n, cool_down_rate=0.5).run().score in (
            1,
            0.5,
        )


def test_ctrl_c_ends_with_the_best_so_far():
    scores = iter([0.5, 0.8, 0.3])

    def evaluate(model):
        score = next(scores, None)
        if score is None:
            raise KeyboardInterrupt
        return score

    result = anneal(evaluator=evaluate).run()
    assert not result.complete
    assert result.score == 0.8
    assert result.sparsities == pytest.approx(result.trials[1]["sparsities"], abs=0.01)


# --- a search that goes on --------------------------------------------------------------------


@pytest.mark.parametrize("where", ["experiment_data_dir", "storage"])
def test_what_was_evaluated_is_not_evaluated_again(where, tmp_path):
    kept = {where: tmp_path if where != "storage" else f"sqlite:///{tmp_path}/study.db"}
    evaluate = closeness([0.2, 0.6, 0.65])
    whole = anneal(evaluator=evaluate).run()
    calls = []

    def stops(model):
        calls.append(1)
        if len(calls) == 7:
            raise KeyboardInterrupt
        return evaluate(model)

    assert not anneal(evaluator=stops, **kept).run().complete

    def counts(model):
        calls.append(1)
        return evaluate(model)

    result = anneal(evaluator=counts, **kept).run()
    assert len(calls) == 7 + 18 - 6
    assert [t["score"] for t in result.trials] == [t["score"] for t in whole.trials]
    assert all(
        torch.equal(mask["weight"], whole.masks[name]["weight"])
        for name, mask in result.masks.items()
    )


def test_optuna_reads_the_study(tmp_path):
    import optuna

    url = f"sqlite:///{tmp_path}/study.db"
    result = anneal(evaluator=closeness([0.2, 0.6, 0.65]), storage=url, study_name="mine").run()
    study = optuna.load_study(study_name="mine", storage=url)
    assert study.best_value == result.score
    assert set(study.best_params) == {"0", "2", "4"}
    assert len(study.trials) == 18
    for trial, made in zip(study.trials, result.trials, strict=True):
        assert trial.duration.total_seconds() == pytest.approx(made["seconds"], abs=1e-5)


OTHERS = {
    "whose seed is 0; here it is 1": lambda: {"seed": 1},
    "whose weights is": lambda: {"model": nn.Sequential(*list(net())[:-1], nn.Linear(30, 10))},
    "whose cool_down_rate is 0.5; here it is 0.6": lambda: {"cool_down_rate": 0.6},
    "whose optimize_mode is 'maximize'": lambda: {"optimize_mode": "minimize"},
}


@pytest.mark.parametrize("said", OTHERS)
def test_a_study_of_another_search_is_refused(said, tmp_path):
    first = {"evaluator": lambda model: 1.0, "experiment_data_dir": tmp_path}
    anneal(**first, cool_down_rate=0.5).run()
    with pytest.raises(ConfigError) as caught:
        anneal(**{**first, "cool_down_rate": 0.5, **OTHERS[said]()}).run()
    assert said in str(caught.value)
    assert "Give another experiment_data_dir" in str(caught.value)


def test_a_folder_for_results_keeps_no_search(tmp_path):
    def search():
        model = net()
        scores = []

        def evaluate(model):
            scores.append(model[0].module.weight.mean().item())
            return scores[-1]

        def finetune(model):
            with torch.no_grad():
                model[0].module.weight.add_(torch.rand(()))

        anneal(model, evaluate=evaluate, finetune=finetune, log_dir=tmp_path).run()
        return scores

    assert search() == search()


@pytest.mark.parametrize("last", [b"no line\n", b'{"op_code": 99}\n'])
def test_a_journal_that_is_damaged(last, tmp_path):
    anneal(evaluator=lambda model: 1.0, cool_down_rate=0.5, experiment_data_dir=tmp_path).run()
    journal = tmp_path / "study.journal"
    journal.write_bytes(journal.read_bytes() + last)
    with pytest.raises(PruneError, match=r"study.journal cannot be read .* delete the file"):
        anneal(evaluator=lambda model: 1.0, cool_down_rate=0.5, experiment_data_dir=tmp_path).run()
    assert journal.read_bytes().endswith(last)


def test_two_places_for_one_study(tmp_path):
    with pytest.raises(ConfigError, match="keep one"):
        anneal(evaluator=len, experiment_data_dir=tmp_path, storage="sqlite://").run()


@pytest.mark.parametrize(
    ("said", "arguments"),
    {
        "optimize_mode is 'most'": {"optimize_mode": "most"},
        "start_temperature is 10 and stop_temperature is 20": {"start_temperature": 10},
        "cool_down_rate is 1.5": {"cool_down_rate": 1.5},
        "evaluate is 3": {"evaluator": 3},
        "seed is None; it must be a whole number": {"seed": None},
        "seed is '7'": {"seed": "7"},
        "needs a score": {},
    }.items(),
)
def test_a_mistake_is_named(said, arguments):
    with pytest.raises(ConfigError) as caught:
        anneal(**arguments).run()
    assert said in str(caught.value)


def test_a_time_limit_that_is_none():
    for limit in (0, "5", float("nan"), float("inf")):
        with pytest.raises(ConfigError, match=f"trial_timeout is {limit!r}"):
            anneal(evaluator=len, trial_timeout=limit)


KILLED = """
import os, random, signal, sys, time, warnings
import numpy as np
import torch
from torch import nn
from prune_core import BasicPruner
from prune_toolkit import (
    NormalSparsityAllocator, StraightMetricsCalculator, WeightDataCollector,
)
from prune_schedule import SimulatedAnnealingPruner
import optuna

torch.set_num_threads(1)

class Smallest(BasicPruner):
    def reset_tools(self):
        self.data_collector = WeightDataCollector(self)
        self.metrics_calculator = StraightMetricsCalculator()
        self.sparsity_allocator = NormalSparsityAllocator(self, transform=torch.abs)

x = torch.randn(64, 20, generator=torch.Generator().manual_seed(1))

def search(folder):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 40), nn.ReLU(), nn.Linear(40, 30), nn.Linear(30, 10))
    dense = model(x).detach()
    evaluations = []
    def evaluate(model):
        evaluations.append(1)
        with open(f"{folder}.calls", "a") as calls:
            calls.write(".")
        return -(model(x) - dense).square().mean().item()
    rules = [{"sparsity": 0.5, "op_types": ["Linear"]}]
    result = SimulatedAnnealingPruner(
        model, rules, evaluate, pruning_algorithm=Smallest, experiment_data_dir=folder
    ).run()
    return {name: masks["weight"] for name, masks in result.masks.items()}

folder = sys.argv[1]
random.seed(2)
expected = search(f"{folder}/whole")
began = time.perf_counter()
search(f"{folder}/timed")
length = time.perf_counter() - began
def survive(attempt):
    kills = 0
    while True:
        child = os.fork()
        if not child:
            torch.save(search(f"{folder}/killed{attempt}"), f"{folder}/masks.pt")
            os._exit(0)
        if kills < 16:
            time.sleep(random.uniform(0.0, length / 2))
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if os.waitstatus_to_exitcode(status) == 0:
            return kills
        kills += 1

# How far a run gets before it is killed depends on the machine, so it may need another attempt.
for attempt in range(20):
    kills = survive(attempt)
    found = torch.load(f"{folder}/masks.pt", weights_only=True)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    if kills >= 2:
        break
print(kills, len(open(f"{folder}/killed{attempt}.calls").read()))
"""


def test_killed_again_and_again(tmp_path):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", KILLED, str(tmp_path)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    kills, calls = map(int, done.stdout.split())
    assert kills >= 2
    assert 18 <= calls <= 18 + kills  # at most the trial that was under way is made again


# --- mistakes that would be made in every trial -----------------------------------------------


@pytest.mark.parametrize(
    ("returned", "says"),
    [
        (None, "evaluate returned None instead of a number; does it lack a `return`"),
        ((0.5, 0.9), r"evaluate returned \(0.5, 0.9\)"),
        ({"accuracy": 0.9}, "returned {'accuracy': 0.9}"),
        (torch.ones(3), r"returned a Tensor of shape \(3,\)"),
    ],
)
def test_an_evaluation_that_returns_no_number_ends_the_search_at_once(returned, says):
    calls, model = [], net()

    def evaluate(model):
        calls.append(model)
        return returned

    pruner = anneal(model, evaluator=evaluate)
    with pytest.raises(PruneError, match=says):
        pruner.compress()
    assert len(calls) == 1


def test_an_argument_that_a_search_does_not_take_is_named_as_the_users_own():
    with pytest.raises(ConfigError, match="SimulatedAnnealingPruner takes no 'trys'.*'tries'"):
        anneal(evaluator=lambda model: 0.5, trys=3)


def test_a_folder_that_is_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="file is a file, and was to be a folder"):
        anneal(evaluator=lambda m: 0.5, experiment_data_dir=tmp_path / "file").compress()
