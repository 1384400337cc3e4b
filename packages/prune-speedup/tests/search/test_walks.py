"""The walks of searches, driven by scores that are made up: no framework is needed."""

import subprocess
import sys

import pytest

from prune_core.errors import ConfigError, PruneError
from prune_speedup.search.admm import ADMM, missed, rho_of_entries
from prune_speedup.search.netadapt import NetAdapt
from prune_speedup.search.plans import DeadEndError
from prune_speedup.search.sensitivity import Sensitivity
from prune_speedup.search.trials_file import StateFile, check_same_plan, digest_of, run_of
from prune_speedup.search.weights import WeightBudget

SIZES = {"a": 100, "b": 100}
DENSE = {"a": 0.0, "b": 0.0}


def budget(total, cap=0.95):
    return WeightBudget([(["a", "b"], total)], SIZES, dict.fromkeys(SIZES, cap))


def driven(plans, score):
    """Return all plans that a walk has tried, in order."""
    tried, answer = [], None
    while True:
        try:
            asked = plans.send(answer)
        except StopIteration:
            return tried
        batch = asked if isinstance(asked, list) else [asked]
        tried += batch
        scores = [score(plan) for plan in batch]
        answer = scores if isinstance(asked, list) else scores[0]


def test_netadapt_adopts_the_best_of_each_round():
    rounds = []
    walk = NetAdapt(0.25).walk(DENSE, budget(0.5), lambda *round: rounds.append(round))
    tried = driven(walk, lambda plan: -plan["a"] - 0.1 * plan["b"])
    # 50 of 200 weights in each round; of `b` no more than 95 may go, so the second half is of `a`.
    assert tried == [DENSE, {"a": 0.5, "b": 0.0}, {"a": 0.0, "b": 0.5}, {"a": 0.5, "b": 0.5}]
    assert rounds == [(1, 2, tried[2], -0.05), (2, 3, tried[3], -0.55)]


def test_netadapt_says_where_it_ends():
    with pytest.raises(DeadEndError, match="None of the candidates of round 1 has a score"):
        driven(NetAdapt(0.25).walk(DENSE, budget(0.5), print), lambda plan: None)


def test_sensitivity_looks_at_all_layers_side_by_side():
    kept, seen = [], []
    walk = Sensitivity(0.5, 0.25, [0.6, 0.3]).walk(
        dict.fromkeys(SIZES, 0.95),
        budget(0.3),
        lambda plan, score: kept.append((plan, score)),
        lambda *point: seen.append(point),
    )
    tried = driven(walk, lambda plan: -plan["a"] - 0.4 * plan["b"])
    # `a` does not tolerate 0.3; `b` tolerates 0.6, so all that goes is of `b`.
    assert tried == [
        DENSE,
        {"a": 0.3, "b": 0.0},
        {"a": 0.0, "b": 0.3},
        {"a": 0.0, "b": 0.6},
        {"a": 0.0, "b": 0.6},
    ]
    assert kept == [({"a": 0.0, "b": 0.6}, pytest.approx(-0.24))]
    assert [point[:3] for point in seen] == [(1, "a", 0.3), (1, "b", 0.3), (1, "b", 0.6)]


def test_sensitivity_scores_a_plan_again_once_it_is_trained():
    trained = []
    walk = Sensitivity(0.5, 0.25, [0.5]).walk(
        dict.fromkeys(SIZES, 0.95),
        budget(0.5),
        lambda plan, score: None,
        lambda *point: None,
        lambda *round: trained.append(round),
    )
    tried = driven(walk, lambda plan: 1.0)
    assert tried[-1] == tried[-2] == {"a": 0.5, "b": 0.5}
    assert trained == [(1, tried[-1])]


def test_admm_by_hand():
    # W = 3, and Z = 0: what is missed adds up.
    assert missed(0.0, 3.0, 0.0) == 3.0
    assert missed(3.0, 2.0, 0.0) == 5.0
    assert ADMM(granularity="coarse-grained").algorithm == "l1"
    rules = [{"op_names": ["a"], "sparsity": 0.5, "rho": 2}, {"op_names": ["b"], "sparsity": 0.5}]
    plain, rho = rho_of_entries(rules, (), 0.125)
    assert rho == {0: 2.0, 1: 0.125}
    assert plain == [{"op_names": [name], "sparsity": 0.5} for name in "ab"]


def test_trials_in_a_file_are_of_one_search(tmp_path):
    told = {
        "algorithm": "l1",
        "config_list": [],
        "optimize_mode": "maximize",
        "weights": digest_of([b"12"]),
        "target": None,
        "settings": {"ratios": (0.5,)},
    }
    run = run_of(object(), seed=0, **told)
    assert run["ratios"] == [0.5]  # as it is read back
    trial = {"trial": 0, "sparsities": {"a": 0.5}, "score": 1.0}
    StateFile(tmp_path / "trials.json", run).add(trial)
    again = StateFile(tmp_path / "trials.json", run)
    assert again.known([0, 1]) == {0: trial}
    check_same_plan(again.known([0])[0], {"a": 0.5})
    with pytest.raises(PruneError, match="has other sparsities than this search tries now"):
        check_same_plan(again.known([0])[0], {"a": 0.25})
    with pytest.raises(ConfigError, match="a search whose seed is 0; here it is 1"):
        StateFile(tmp_path / "trials.json", run_of(object(), seed=1, **told))
    assert digest_of([b"1", b"2"]) == digest_of([b"12"]) != digest_of([b"13"])


def test_none_of_it_needs_a_framework():
    script = """
import sys
from importlib import import_module
for name in ("admm", "annealing", "latency_cache", "netadapt", "pieces", "planned", "plans",
             "rules", "sensitivity", "trials_file", "weights"):
    import_module(f"prune_speedup.search.{name}")
assert not {"torch", "keras", "tensorflow"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", script], check=True)
