"""The calls of older releases of searches."""

import functools

import pytest
import torch
from older_calls import LINEAR, Evaluator, X, fit, network, score, settings

from prune_core import ConfigError, PruneWarning
from prune_schedule import (
    AMCPruner,
    NetAdaptPruner,
    SensitivityPruner,
    SimulatedAnnealingPruner,
)
from prune_speedup.search.annealing import Annealing


def test_annealing_by_position_in_every_order(tmp_path):
    train, evaluator = fit, Evaluator()
    temperatures = (90, 30, 0.5, 0.25)
    calls = {
        "1.9": (score, "minimize", "smallest", *temperatures),
        "2.5": ("smallest", score, *temperatures, str(tmp_path), False, train, False, X, {}),
        "2.8": (score, *temperatures, "smallest", {}, str(tmp_path), False, train, False, X),
        "2.9": (evaluator, *temperatures, "smallest", {}, str(tmp_path), False, False),
    }
    for release, call in calls.items():
        pruner = SimulatedAnnealingPruner(network(), LINEAR, *call)
        assert pruner.annealing == Annealing(*temperatures), release
        assert pruner.pruning_algorithm == "smallest"
        assert callable(pruner.evaluator)
        assert pruner.optimize_mode == ("minimize" if release == "1.9" else "maximize")
        assert pruner.finetune == {"1.9": None, "2.9": evaluator.train}.get(release, train)
        assert pruner.log_dir == (None if release == "1.9" else str(tmp_path))


def test_annealing_by_name():
    pruner = SimulatedAnnealingPruner(
        network(), LINEAR, pruning_algorithm="smallest", evaluator=score, cool_down_rate=0.5,
        finetuner=fit,
    )  # fmt: skip
    assert settings(pruner, "evaluator", "finetune") == [score, fit]
    with pytest.warns(PruneWarning, match="keep_intermediate_result=True has no effect here. tri"):
        SimulatedAnnealingPruner(
            network(), LINEAR, score, base_algo="smallest", keep_intermediate_result=True
        )


def test_netadapt_and_sensitivity_by_position():
    pruner = NetAdaptPruner(network(), LINEAR, fit, score, "maximize", "smallest", 0.25)
    assert settings(pruner, "finetune", "evaluator", "pruning_algorithm") == [
        fit, score, "smallest",
    ]  # fmt: skip
    assert pruner.sparsity_per_iteration == 0.25
    pruner = NetAdaptPruner(
        network(), LINEAR, short_term_fine_tuner=fit, evaluator=score, base_algo="smallest"
    )
    assert settings(pruner, "finetune", "evaluator") == [fit, score]
    shares = dict
    pruner = SensitivityPruner(
        network(), LINEAR, score, fit, "smallest", shares, 0.25, 0.5, "somewhere"
    )
    assert settings(pruner, "finetuner", "evaluator", "pruning_algorithm", "log_dir") == [
        fit, score, "smallest", "somewhere",
    ]  # fmt: skip
    assert settings(pruner, "sparsity_per_iter", "acc_drop_threshold") == [0.25, 0.5]
    pruner = SensitivityPruner(
        network(), LINEAR, finetuner=fit, evaluator=score, base_algo="smallest",
        checkpoint_dir="somewhere",
    )  # fmt: skip
    assert settings(pruner, "finetuner", "log_dir") == [fit, "somewhere"]


def test_sensitivity_calls_with_what_it_is_given():
    seen = []

    def evaluate(loader, model):
        seen.append(loader)
        return score(model)

    def fine_tune(model, rate, epochs=3):
        seen.append((rate, epochs))

    model = network()
    pruner = SensitivityPruner(model, LINEAR, evaluate, fine_tune, "smallest", None, 0.5)
    pruner.compress(eval_args=["data", model], finetune_args=[model], finetune_kwargs={"rate": 0.1})
    assert set(seen) == {"data", (0.1, 3)}
    pruner = SensitivityPruner(network(), LINEAR, evaluate, None, "smallest", None, 0.5)
    with pytest.raises(ConfigError, match=r"evaluate\(\), given as evaluate, requires 'model'"):
        pruner.compress()


DDPG = {
    **{"hidden1": 16, "hidden2": 16, "lr_c": 1e-3, "lr_a": 1e-4, "warmup": 1, "discount": 1.0},
    **{"bsize": 64, "rmsize": 100, "window_length": 1, "tau": 0.01, "init_delta": 0.5},
    **{"delta_decay": 0.99, "max_episode_length": 1e9, "epsilon": 50000},
}


@pytest.fixture
def agent():
    pytest.importorskip("stable_baselines3", reason="AMC's agent is that of stable-baselines3")


def test_amc_of_later_releases(agent, tmp_path, recwarn):
    rules = [{"op_types": ["Linear"], "total_sparsity": 0.5, "max_sparsity_per_layer": 0.8}]
    pruner = AMCPruner(
        3, network(), rules, X, score, "units", finetuner=fit, ddpg_params=DDPG, target="flops"
    )
    assert settings(pruner, "episodes", "pruning_algorithm", "finetune", "target") == [
        3, "units", fit, {"flops": 0.5},
    ]  # fmt: skip
    assert (pruner.ddpg_params.hidden1, pruner.ddpg_params.bsize) == (16, 64)
    pruner = AMCPruner(
        3, network(), rules, X, score, "units", str(tmp_path), False, fit, DDPG, {}, "params"
    )
    assert settings(pruner, "log_dir", "finetune", "target") == [
        str(tmp_path), fit, {"parameters": 0.5},
    ]  # fmt: skip
    evaluator = Evaluator()
    pruner = AMCPruner(
        3, network(), rules, evaluator, "units", str(tmp_path), False, DDPG, {}, "params",
        dummy_input=X,
    )  # fmt: skip
    assert settings(pruner, "episodes", "evaluator", "finetune", "pruning_algorithm") == [
        3, evaluator.__call__, evaluator.train, "units",
    ]  # fmt: skip
    assert not recwarn.list


def test_amc_says_what_its_agent_does_not_do(agent):
    with pytest.warns(PruneWarning) as warned:
        AMCPruner(
            3, network(), [{"op_types": ["Linear"]}], X, score, "units",
            ddpg_params={**DDPG, "window_length": 4, "epsilon": 10},
        )  # fmt: skip
    assert [str(w.message) for w in warned] == [
        "AMCPruner: window_length=4 has no effect here.",
        "AMCPruner: epsilon=10 has no effect here.",
    ]
    assert warned[0].filename == __file__


def test_amc_of_the_first_releases_by_position(agent, recwarn):
    def validate(loader, model):
        return score(model)

    loader = [(X, torch.zeros(4))]
    rules = [{"op_types": ["Linear"]}]
    agent = (16, 16, 1e-3, 1e-4, 1, 1.0, 64, 100, 1, 0.01, 0.5, 0.99, 1e9)
    pruner = AMCPruner(
        network(), rules, validate, loader, None, "mobilenet", "cifar10", 0.6, 0.1, 0.9,
        "acc_flops_reward", 60, 10, None, *agent, "./logs", False, 5, 50000, None,
        pruning_algorithm="units",
    )  # fmt: skip
    assert settings(pruner, "episodes", "target", "lbound", "rbound", "reward_name", "seed") == [
        5, {"flops": 0.6}, 0.1, 0.9, "acc_flops_reward", 0,
    ]  # fmt: skip
    assert pruner.ddpg_params.hidden1 == 16
    assert isinstance(pruner.evaluator, functools.partial)
    assert not recwarn.list
