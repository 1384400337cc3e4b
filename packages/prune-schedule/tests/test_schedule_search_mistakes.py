"""Evaluators that fail or return no score, and arguments that no search takes."""

import time

import numpy as np
import pytest
import torch
from small_search import anneal, net
from torch import nn

from prune_core import ConfigError, PruneError, PruneWarning

pytest.importorskip("optuna", reason="searches are kept in Optuna studies")


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
