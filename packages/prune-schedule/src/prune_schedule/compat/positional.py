"""The call forms of NNI for the pruners of this package, as tables; see `prune_core.compat`.

The orders are those of NNI 2.5 to 2.8, of 2.9 (an evaluator that trains, and no input), of 2.1
(trainer and criterion) and of 1.9.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from prune_core import ConfigError
from prune_core.callables import trainer_function
from prune_core.compat import NoEffect, Older, order
from prune_core.evaluators import holds_training

__all__ = ["ADMM", "AMC", "ANNEALING", "AUTOCOMPRESS", "GRADUAL", "SEARCH"]

_KEPT = ("log_dir", "keep_intermediate_result")
_TEMPERATURES = (
    *("start_temperature", "stop_temperature", "cool_down_rate", "perturbation_magnitude"),
)
_NAMES = Older(renamed={"base_algo": "pruning_algorithm", "speed_up": "speedup"})

SEARCH = _NAMES | Older(
    renamed={
        "evaluator": "evaluate",
        "finetuner": "finetune",
        "short_term_fine_tuner": "finetune",
        "checkpoint_dir": "log_dir",
    }
)

ANNEALING = SEARCH | Older(
    orders=[
        order(
            *("evaluator", *_TEMPERATURES, "pruning_algorithm", "pruning_params", *_KEPT),
            *("finetuner", "speedup", "dummy_input"),
        ),
        order(
            *("pruning_algorithm", "evaluator", *_TEMPERATURES, *_KEPT),
            *("finetuner", "speedup", "dummy_input", "pruning_params"),
        ),
        order(
            *("evaluator", *_TEMPERATURES, "pruning_algorithm", "pruning_params", *_KEPT),
            "speedup",
        ),
        order("evaluator", "optimize_mode", "base_algo", *_TEMPERATURES, "experiment_data_dir"),
    ],
    ignored={"keep_intermediate_result": NoEffect(False, "trials has all that was tried.")},
)

_AGENT = (
    *("hidden1", "hidden2", "lr_c", "lr_a", "warmup", "discount", "bsize", "rmsize"),
    *("window_length", "tau", "init_delta", "delta_decay", "max_episode_length"),
)
_NOT_LEARNT_WITH = {
    "window_length": NoEffect(1),
    "max_episode_length": NoEffect(1e9),
    "epsilon": NoEffect(50000),
}


def _out_of_ddpg_params(given: dict[str, Any]) -> dict[str, Any]:
    if given.get("seed", 0) is None:
        del given["seed"]
    params = dict(given.get("ddpg_params") or {})
    for name in _NOT_LEARNT_WITH:
        if name in params:
            given[name] = params.pop(name)
    return {**given, "ddpg_params": params} if params else given


AMC = SEARCH | Older(
    orders=[
        (
            *("total_episode", "model", "config_list", "dummy_input", "evaluator"),
            *("pruning_algorithm", *_KEPT, "finetuner", "ddpg_params", "pruning_params", "target"),
        ),
        (
            *("total_episode", "model", "config_list", "evaluator", "pruning_algorithm", *_KEPT),
            *("ddpg_params", "pruning_params", "target"),
        ),
        order(
            *("evaluator", "val_loader", "suffix", "model_type", "dataset", "flops_ratio"),
            *("lbound", "rbound", "reward", "n_calibration_batches", "n_points_per_layer"),
            *("channel_round", *_AGENT, "output_dir", "debug", "train_episode", "epsilon", "seed"),
        ),
    ],
    renamed={"total_episode": "train_episode", "target_density": "flops_ratio"},
    ignored={
        **_NOT_LEARNT_WITH,
        "suffix": NoEffect(None),
        "model_type": NoEffect("mobilenet"),
        "dataset": NoEffect("cifar10"),
        "n_calibration_batches": NoEffect(60),
        "n_points_per_layer": NoEffect(10),
        "channel_round": NoEffect(None),
        "output_dir": NoEffect("./logs", "log_dir= says where the result goes."),
        "debug": NoEffect(False),
        "keep_intermediate_result": NoEffect(False, "trials has all that was tried."),
    },
    convert=_out_of_ddpg_params,
)

# --- schedules ----------------------------------------------------------------------------------


class TrainerRounds:
    """A trainer of NNI 2.1, as a function of the model that trains it for a round.

    It counts the epochs of the whole run, as that release did, and a checkpoint keeps the count.

    Args:
        trainer: Trains for an epoch: `trainer(model, optimizer, criterion, epoch)`.
        optimizer: What it gets.
        criterion: What it gets.
        epochs: The epochs of a round.
    """

    def __init__(
        self, trainer: Callable[..., Any], optimizer: Any, criterion: Any, epochs: int
    ) -> None:
        self._train = trainer_function(trainer)
        for name, value in (("optimizer", optimizer), ("criterion", criterion)):
            if name in self._train.takes and value is None:
                raise ConfigError(f"The trainer takes the {name}: give {name}= as well.")
        self._given, self._epochs, self._done = (optimizer, criterion), epochs, 0

    def __call__(self, model: nn.Module) -> None:
        """Train for a round."""
        for _ in range(self._epochs):
            self._train(model, *self._given, self._done, _nothing)
            self._done += 1

    def state_dict(self) -> dict[str, Any]:
        """Return the count."""
        return {"epochs": self._done}

    def load_state_dict(self, state_dict: dict[str, Any], /) -> None:
        """Go on counting."""
        self._done = state_dict["epochs"]


def _nothing() -> None:
    """Stand in for the callback of trainers that want one."""


def _trained_in_rounds(given: dict[str, Any]) -> dict[str, Any]:
    """Let a trainer be what is called in each round.

    That release made masks for `num_iterations` sparsities, the first of them 0, which are the
    rounds 0 to `num_iterations - 1` of today.
    """
    trainer, criterion = given.pop("trainer", None), given.pop("criterion", None)
    rounds, epochs = given.pop("num_iterations", None), given.pop("epochs_per_iteration", None)
    if trainer is not None:
        if given.get("finetune") is not None:
            raise ConfigError("trainer and finetune both train the model; give one of them.")
        loop = TrainerRounds(trainer, given.get("optimizer"), criterion, epochs or 1)
        given["finetune"] = loop
        given["stateful"] = {**(given.get("stateful") or {}), "trainer": loop}
        rounds = 10 if rounds is None else rounds
    if rounds is not None and given.get("total_iteration") is None:
        given["total_iteration"] = max(1, rounds - 1) if isinstance(rounds, int) else rounds
    return given


GRADUAL = _NAMES | Older(
    orders=[
        order(
            *("pruning_algorithm", "total_iteration", *_KEPT, "finetuner", "speedup"),
            *("dummy_input", "evaluator", "pruning_params"),
        ),
        order(
            *("pruning_algorithm", "total_iteration", *_KEPT, "evaluator", "speedup"),
            "pruning_params",
        ),
        order(
            *("optimizer", "trainer", "criterion", "num_iterations", "epochs_per_iteration"),
            "pruning_algorithm",
        ),
        order("optimizer", "pruning_algorithm"),
    ],
    renamed={"finetuner": "finetune", "evaluator": "evaluate"},
    convert=_trained_in_rounds,
)

# ADMM of the first releases pruned whole filters unless it was told otherwise.
_OF_FILTERS = {"pruning_algorithm": "l1"}


def _trained_by_evaluator(given: dict[str, Any]) -> dict[str, Any]:
    if holds_training(given.get("trainer")):
        given["evaluator"] = given.pop("trainer")
    return given


ADMM = _NAMES | Older(
    orders=[
        order("evaluator", "iterations", "training_epochs", "granularity"),
        order(
            *("trainer", "criterion", "num_iterations", "epochs_per_iteration", "row"),
            "base_algo",
        ),
        order("trainer", "num_iterations", "training_epochs", "row", "base_algo"),
    ],
    renamed={
        "optimizer": "traced_optimizer",
        "num_iterations": "iterations",
        "epochs": "training_epochs",
        "epochs_per_iteration": "training_epochs",
    },
    implied=dict.fromkeys(("num_iterations", "epochs", "epochs_per_iteration", "row"), _OF_FILTERS),
    convert=_trained_by_evaluator,
)

AUTOCOMPRESS = _NAMES | Older(
    orders=[
        order(
            *("total_iteration", "admm_params", "sa_params", *_KEPT),
            *("finetuner", "speedup", "dummy_input", "evaluator"),
        ),
        order("total_iteration", "admm_params", "sa_params", *_KEPT, "evaluator", "speedup"),
        order(
            *("trainer", "evaluator", "dummy_input", "num_iterations", "optimize_mode"),
            *("base_algo", *_TEMPERATURES, "admm_num_iterations", "admm_training_epochs"),
            *("row", "experiment_data_dir"),
        ),
        order(
            *("trainer", "evaluator", "dummy_input", "criterion", "num_iterations"),
            *("optimize_mode", "base_algo", *_TEMPERATURES, "admm_num_iterations"),
            *("admm_epochs_per_iteration", "row", "experiment_data_dir"),
        ),
    ],
    renamed={
        "evaluator": "evaluate",
        "num_iterations": "total_iteration",
        "admm_epochs_per_iteration": "admm_training_epochs",
    },
)
