"""Every call of every older release does what the call of today does."""

import contextlib
import functools

import pytest
import torch
from torch import nn

from prune_core import Compressed, ConfigError, OptionError, PruneWarning
from prune_schedule import (
    ADMMPruner,
    AGPPruner,
    AMCPruner,
    AutoCompressPruner,
    LinearPruner,
    NetAdaptPruner,
    SensitivityPruner,
    SimulatedAnnealingPruner,
)

LINEAR = [{"sparsity": 0.5, "op_types": ["Linear"]}]
X = torch.rand(4, 6, generator=torch.Generator().manual_seed(1))


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 10), nn.ReLU(), nn.Linear(10, 2))


def score(model):
    with torch.no_grad():
        return -float(model(X).square().mean())


def sgd(model):
    return torch.optim.SGD(model.parameters(), lr=0.0)


def fit(model, *_):
    model(X).sum().backward()


class Evaluator:
    """What NNI 2.9 takes for training and scoring."""

    def train(self, model, steps=None, epochs=None):
        fit(model)

    def __call__(self, model):
        return score(model)


def settings(pruner, *names):
    return [getattr(pruner, name) for name in names]


# --- schedules ----------------------------------------------------------------------------------

NAMES = (
    *("pruning_algorithm", "total_iteration", "finetuner", "speedup", "dummy_input", "evaluator"),
    "pruning_params",
)


@pytest.mark.parametrize("schedule", [AGPPruner, LinearPruner])
@pytest.mark.parametrize("form", ["2.8", "2.8, by name", "2.5"])
def test_rounds_with_every_argument(schedule, form, tmp_path):
    train, params = lambda model: None, {}
    given = ("smallest", 3, str(tmp_path), True, train, True, X, score, params)
    names = {
        **dict(zip(("pruning_algorithm", "total_iteration", "log_dir"), given, strict=False)),
        **{"keep_intermediate_result": True, "finetuner": train, "dummy_input": X},
        **{"evaluator": score, "pruning_params": params},
    }
    pruner = {
        "2.8": lambda: schedule(network(), LINEAR, *given),
        "2.8, by name": lambda: schedule(network(), LINEAR, speedup=True, **names),
        "2.5": lambda: schedule(network(), LINEAR, speed_up=True, **names),
    }[form]()
    assert settings(pruner, *NAMES) == ["smallest", 3, train, True, X, score, {}]
    pruner.compress()
    assert (tmp_path / "intermediate_result/3/model.pth").exists()


def test_rounds_with_an_evaluator():
    evaluator = Evaluator()
    pruner = AGPPruner(network(), LINEAR, "smallest", 3, ".", False, evaluator, False, {})
    assert settings(pruner, "total_iteration", "evaluator", "finetuner") == [
        3, evaluator.__call__, evaluator.train,
    ]  # fmt: skip


def trainer_of(seen):
    def trainer(model, criterion, optimizer, epoch):
        seen.append((epoch, criterion, optimizer, int(model[0].masked_count("weight"))))

    return trainer


@pytest.mark.parametrize("form", ["by position", "by name"])
def test_rounds_with_a_trainer(form):
    model, seen = network(), []
    optimizer, criterion = sgd(model), nn.CrossEntropyLoss()
    if form == "by position":
        pruner = AGPPruner(model, LINEAR, optimizer, trainer_of(seen), criterion, 4, 2, "smallest")
    else:
        pruner = AGPPruner(
            model, LINEAR, trainer=trainer_of(seen), optimizer=optimizer, criterion=criterion,
            num_iterations=4, epochs_per_iteration=2, pruning_algorithm="smallest",
        )  # fmt: skip
    bound, masks = pruner.compress()
    assert bound is model
    assert [epoch for epoch, *_ in seen] == list(range(8))
    assert {(c, o) for _, c, o, _ in seen} == {(criterion, optimizer)}
    # Four sparsities from 0 to the final one, along (1 - (1 - t/3)³), with two epochs at each.
    wanted = [0.5 * (1 - (1 - t / 3) ** 3) for t in range(4) for _ in range(2)]
    assert [masked for *_, masked in seen] == [int(48 * s + 1e-9) for s in wanted]
    assert int(masks["0"]["weight"].sum()) == 24


def test_a_run_with_a_trainer_counts_on_after_a_restart(tmp_path):
    def run(stop_after):
        seen = []

        def trainer(model, optimizer, criterion, epoch):
            if len(seen) == stop_after:
                raise SystemExit
            seen.append(epoch)

        model = network()
        pruner = AGPPruner(
            model, LINEAR, sgd(model), trainer, len, 3, 2, "smallest",
            checkpoint=tmp_path / "run.pt",
        )  # fmt: skip
        with contextlib.suppress(SystemExit):
            pruner.compress()
        return seen

    assert run(3) == [0, 1, 2]
    assert run(99) == [2, 3, 4, 5], "the round that was not finished begins anew"


def test_a_trainer_needs_what_it_takes():
    model = network()
    with pytest.raises(ConfigError, match="The trainer takes the optimizer: give optimizer="):
        AGPPruner(
            model, LINEAR, trainer=lambda model, optimizer: None, pruning_algorithm="smallest"
        )
    with pytest.raises(ConfigError, match="trainer and finetune both train the model"):
        AGPPruner(model, LINEAR, "smallest", 3, finetuner=fit, trainer=fit)
    pruner = AGPPruner(model, LINEAR, trainer=fit, pruning_algorithm="smallest")
    assert pruner.total_iteration == 9, "ten iterations unless given, the first at 0"


@pytest.mark.parametrize("form", [("smallest",), ()])
def test_training_drives_it_and_returns_the_model(form):
    model = network()
    rules = [{"final_sparsity": 0.5, "end_epoch": 3, "op_types": ["Linear"]}]
    optimizer = sgd(model)
    options = {} if form else {"pruning_algorithm": "smallest"}
    pruner = AGPPruner(model, rules, optimizer, *form, **options)
    returned = pruner.compress()
    assert isinstance(returned, Compressed)
    assert returned[0] is model
    assert returned(X).shape == (4, 2)
    for epoch in range(3):
        pruner.update_epoch(epoch)
    assert int(pruner.masks["0"]["weight"].sum()) == 24


# --- ADMM and AutoCompress ----------------------------------------------------------------------


def admm(seen):
    def trainer(model, optimizer, criterion, epoch):
        seen.append((criterion, epoch))
        model(X).sum().backward()

    return trainer


@pytest.mark.parametrize("form", ["1.9", "1.9, by name", "2.1", "2.1, by name", "2.8"])
def test_admm(form):
    model, seen, criterion = network(), [], nn.MSELoss()
    trainer = admm(seen)
    pruner = {
        "1.9": lambda: ADMMPruner(model, LINEAR, trainer, 2, 3, 0.01, "smallest"),
        "1.9, by name": lambda: ADMMPruner(
            model, LINEAR, trainer=trainer, num_iterations=2, epochs=3, row=0.01,
            base_algo="smallest",
        ),
        "2.1": lambda: ADMMPruner(model, LINEAR, trainer, criterion, 2, 3, 0.01, "smallest"),
        "2.1, by name": lambda: ADMMPruner(
            model, LINEAR, trainer=trainer, criterion=criterion, num_iterations=2,
            epochs_per_iteration=3, row=0.01, base_algo="smallest",
        ),
        "2.8": lambda: ADMMPruner(
            model, LINEAR, trainer, sgd(model), criterion, 2, 3, "fine-grained", row=0.01,
            pruning_algorithm="smallest",
        ),
    }[form]()  # fmt: skip
    _, masks = pruner.compress()
    assert [epoch for _, epoch in seen] == list(range(6))
    expected = nn.functional.cross_entropy if form.startswith("1.9") else criterion
    assert {c for c, _ in seen} == {expected}
    assert pruner.rho == 0.01
    assert int(masks["0"]["weight"].sum()) == 24


def quick(trainer, **given):
    return {
        "trainer": trainer,
        "evaluator": score,
        "num_iterations": 1,
        "base_algo": "smallest",
        "cool_down_rate": 0.3,
        "admm_num_iterations": 2,
        **given,
    }


@pytest.mark.parametrize("epochs", ["admm_training_epochs", "admm_epochs_per_iteration"])
def test_autocompress_of_the_first_releases(epochs):
    seen, criterion = [], nn.MSELoss()
    pruner = AutoCompressPruner(
        network(), LINEAR, criterion=criterion, **quick(admm(seen), **{epochs: 3})
    )
    model = pruner.compress()
    assert model(X).shape == (4, 2)
    assert seen == [(criterion, epoch) for epoch in range(6)]


@pytest.mark.parametrize("criterion", [(), (nn.MSELoss(),)])
def test_autocompress_by_position(criterion):
    temperatures = (100, 20, 0.3, 0.2)
    pruner = AutoCompressPruner(
        network(), LINEAR, admm([]), score, X, *criterion, 2, "minimize", "units", *temperatures,
        3, 1, 0.25,
    )  # fmt: skip
    assert settings(pruner, "rounds", "pruning_algorithm", "rho", "dummy_input") == [
        2, "units", 0.25, X,
    ]  # fmt: skip
    assert pruner._search["optimize_mode"] == "minimize"
    assert pruner._search["perturbation_magnitude"] == 0.2
    assert pruner._admm.get("criterion") is (criterion[0] if criterion else None)
    assert (pruner._admm["iterations"], pruner._admm["training_epochs"]) == (3, 1)


@pytest.mark.parametrize(
    ("params", "search", "given", "algorithm"),
    [
        ({}, {}, {}, "level"),
        ({"granularity": "fine-grained"}, {}, {}, "level"),
        ({"granularity": "coarse-grained"}, {}, {}, "l1"),
        ({}, {"pruning_algorithm": "rows"}, {}, "rows"),
        ({"granularity": "coarse-grained"}, {"pruning_algorithm": "rows"}, {}, "l1"),
        ({"granularity": "coarse-grained"}, {}, {"pruning_algorithm": "channels"}, "channels"),
    ],
)
def test_the_granularity_of_autocompress(params, search, given, algorithm, toys, monkeypatch):
    asked = []

    def get_pruner(name, **_):
        asked.append(name)
        return toys.Weights if name == "level" else toys.Channels

    monkeypatch.setattr("prune_schedule.run.delegating.get_pruner", get_pruner)
    params = {"trainer": fit, "iterations": 1, "training_epochs": 1, **params}
    pruner = AutoCompressPruner(
        network(), LINEAR, 1, params, {"evaluator": score, "cool_down_rate": 0.3, **search}, **given
    )
    assert pruner.pruning_algorithm == algorithm
    pruner.compress()
    assert set(asked) == {algorithm}


def test_the_sparsity_of_autocompress_is_reached_weight_by_weight(toys, monkeypatch):
    monkeypatch.setattr("prune_schedule.run.delegating.get_pruner", lambda *_, **__: toys.Weights)
    rules = [{"total_sparsity": 0.8, "op_types": ["Linear"]}]
    params = {"trainer": fit, "iterations": 1, "training_epochs": 1, "granularity": "fine-grained"}
    search = {"evaluator": score, "cool_down_rate": 0.3}
    pruner = AutoCompressPruner(network(), rules, 2, params, search, keep_intermediate_result=True)
    _, masks = pruner.compress()
    left = sum(int(mask["weight"].sum()) for mask in masks.values())
    assert left / (48 + 80 + 20) == pytest.approx(0.2, abs=0.02)


def test_what_nobody_says_of_admm_is_as_admm_has_it():
    search = {"evaluator": score, "cool_down_rate": 0.3}
    pruner = AutoCompressPruner(
        network(), LINEAR, 1, {"finetune": fit, "granularity": "coarse-grained"}, search,
        pruning_algorithm="smallest",
    )  # fmt: skip
    assert {"iterations", "training_epochs"}.isdisjoint(pruner._admm)
    _, masks = pruner.compress()
    assert not all(bool(mask["weight"].all()) for mask in masks.values())


def test_an_unknown_granularity():
    with pytest.raises(ConfigError, match=r"admm_params\['granularity'\] is 'rough'"):
        AutoCompressPruner(
            network(), LINEAR, 1, {"trainer": fit, "granularity": "rough"}, {"evaluator": score}
        )


# --- searches -----------------------------------------------------------------------------------


def test_annealing_by_position_in_every_order(tmp_path):
    train, evaluator = fit, Evaluator()
    temperatures = (90, 30, 0.5, 0.25)
    names = ("start_temperature", "stop_temperature", "cool_down_rate", "perturbation_magnitude")
    calls = {
        "1.9": (score, "minimize", "smallest", *temperatures),
        "2.5": ("smallest", score, *temperatures, str(tmp_path), False, train, False, X, {}),
        "2.8": (score, *temperatures, "smallest", {}, str(tmp_path), False, train, False, X),
        "2.9": (evaluator, *temperatures, "smallest", {}, str(tmp_path), False, False),
    }
    for release, call in calls.items():
        pruner = SimulatedAnnealingPruner(network(), LINEAR, *call)
        assert settings(pruner, *names) == list(temperatures), release
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


# --- one function for all -----------------------------------------------------------------------


@pytest.mark.parametrize("epochs", ["optional", "keyword"])
def test_one_function_trains_for_every_schedule(epochs):
    seen = []

    def optional(model, epochs=3):
        seen.append(epochs)

    def keyword(model, *, epochs=3):
        seen.append(epochs)

    train = {"optional": optional, "keyword": keyword}[epochs]
    common = {"pruning_algorithm": "smallest", "finetune": train}
    pruners = [
        AGPPruner(network(), LINEAR, total_iteration=1, **common),
        ADMMPruner(network(), LINEAR, iterations=1, training_epochs=1, **common),
        AutoCompressPruner(
            network(), LINEAR, evaluate=score, total_iteration=1, admm_num_iterations=1,
            admm_training_epochs=1, cool_down_rate=0.3, finetuner=train, **common,
        ),
        SimulatedAnnealingPruner(network(), LINEAR, score, cool_down_rate=0.3, **common),
        NetAdaptPruner(
            network(), LINEAR, evaluate=score, sparsity_per_iteration=0.5, **common
        ),
        SensitivityPruner(network(), LINEAR, score, sparsity_per_iter=0.5, **common),
    ]  # fmt: skip
    for pruner in pruners:
        seen.clear()
        returned = pruner.compress()
        assert isinstance(returned, Compressed), type(pruner).__name__
        assert set(seen) == {3}, type(pruner).__name__


def test_a_function_that_requires_more_is_refused_at_once():
    def train(model, optimizer):
        """Never called."""

    for build in (
        lambda m: AGPPruner(m, LINEAR, "smallest", 2, finetuner=train),
        lambda m: SimulatedAnnealingPruner(m, LINEAR, score, finetuner=train),
        lambda m: NetAdaptPruner(m, LINEAR, train, score),
    ):
        model = network()
        with pytest.raises(ConfigError, match="given as finetune, requires 'optimizer'"):
            build(model)
        assert type(model[0]) is nn.Linear


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda m: AGPPruner(m, LINEAR, totl_iteration=3), "Did you mean 'total_iteration'"),
        (lambda m: NetAdaptPruner(m, LINEAR, fit, score, trget=1), "Did you mean 'target'"),
        (lambda m: SimulatedAnnealingPruner(m, LINEAR, sede=1), "Did you mean 'seed'"),
    ],
)
def test_unknown_arguments(build, says):
    with pytest.raises(OptionError, match=says):
        build(network())
