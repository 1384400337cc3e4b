"""NNI's `PruningScheduler`: a pruner, a task generator and a scheduler.

New code needs one of them, such as `AGPPruner`; these names let older scripts go on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from typing import Any, ClassVar

from torch import nn

from prune_core import Compressed, ConfigError, PruneError, Pruner, get_pruner
from prune_core.masking import Masks
from prune_schedule.run.evaluation import Evaluate, Finetune

__all__ = [
    "AGPTaskGenerator",
    "LinearTaskGenerator",
    "LotteryTicketTaskGenerator",
    "PruningScheduler",
    "SimulatedAnnealingTaskGenerator",
    "TaskGenerator",
]

ConfigList = Sequence[Mapping[str, Any]] | str | PathLike[str]


class TaskGenerator:
    """Says what a `PruningScheduler` prunes, and along which schedule; subclasses say which.

    Args:
        total_iteration: After how many rounds the final sparsity is reached.
        origin_model: The model, wrapped in place.
        origin_config_list: The rules.
        origin_masks: Masks to begin with, which no schedule takes here.
        log_dir: A folder for the result.
        keep_intermediate_result: Whether it gets the results of all rounds.
    """

    schedule: ClassVar[str]

    def __init__(
        self,
        total_iteration: int,
        origin_model: nn.Module,
        origin_config_list: ConfigList,
        origin_masks: Mapping[str, Any] | None = None,
        log_dir: str | PathLike[str] | None = None,
        keep_intermediate_result: bool = False,
    ) -> None:
        if origin_masks:
            raise ConfigError(
                "origin_masks has masks, and a schedule begins without any. Unwrap the model that "
                "they belong to first, prune_core.unwrap(model): its zeros are pruned first again."
            )
        self.model, self.config_list = origin_model, origin_config_list
        self.options: dict[str, Any] = {
            "total_iteration": total_iteration,
            "log_dir": log_dir,
            "keep_intermediate_result": keep_intermediate_result,
        }


class AGPTaskGenerator(TaskGenerator):
    """The rounds of `AGPPruner`."""

    schedule = "prune-schedule:agp"


class LinearTaskGenerator(TaskGenerator):
    """The rounds of `LinearPruner`."""

    schedule = "prune-schedule:linear"


class LotteryTicketTaskGenerator(TaskGenerator):
    """The rounds of `LotteryTicketPruner`, which prune-lottery brings."""

    schedule = "prune-lottery:lottery_ticket"


class SimulatedAnnealingTaskGenerator(TaskGenerator):
    """The trials of `SimulatedAnnealingPruner`.

    Args:
        origin_model: The model, wrapped in place.
        origin_config_list: The rules.
        origin_masks: Masks to begin with, which no search takes here.
        start_temperature: The first temperature.
        stop_temperature: The temperature at which the search ends.
        cool_down_rate: The factor of the temperature with each trial.
        perturbation_magnitude: The largest change of a layer's sparsity, at first.
        log_dir: A folder for the result.
        keep_intermediate_result: Has no effect: `trials` has all that was tried.
    """

    schedule = "prune-schedule:simulated_annealing"

    def __init__(
        self,
        origin_model: nn.Module,
        origin_config_list: ConfigList,
        origin_masks: Mapping[str, Any] | None = None,
        start_temperature: float = 100.0,
        stop_temperature: float = 20.0,
        cool_down_rate: float = 0.9,
        perturbation_magnitude: float = 0.35,
        log_dir: str | PathLike[str] | None = None,
        keep_intermediate_result: bool = False,
    ) -> None:
        super().__init__(1, origin_model, origin_config_list, origin_masks)
        self.options = {
            "start_temperature": start_temperature,
            "stop_temperature": stop_temperature,
            "cool_down_rate": cool_down_rate,
            "perturbation_magnitude": perturbation_magnitude,
            "log_dir": log_dir,
            "keep_intermediate_result": keep_intermediate_result,
        }


class PruningScheduler:
    """Runs the schedule of a task generator with a pruner.

    Args:
        pruner: The pruner, made without a model: `L1NormPruner(None, None)`.
        task_generator: What is pruned, and along which schedule.
        finetuner: Takes the model and trains it, once in each round.
        speedup: Whether `compress()` and `get_best_result()` return a model that has been made
            small, a copy of the one that stays wrapped.
        dummy_input: An input of the model, for `speedup`.
        evaluator: Takes the model and returns its score.
        reset_weight: Whether weights are rewound in each round, as lottery tickets are.

    Attributes:
        schedule: The pruner that does it, once `compress()` has been called.
    """

    def __init__(
        self,
        pruner: Pruner,
        task_generator: TaskGenerator,
        finetuner: Finetune | None = None,
        speedup: bool = False,
        dummy_input: Any = None,
        evaluator: Evaluate | None = None,
        reset_weight: bool = False,
    ) -> None:
        if not isinstance(pruner, Pruner):
            raise ConfigError(
                f"pruner is a {type(pruner).__name__}; it must be a pruner without a model, such "
                "as prune_filter.L1NormPruner(None, None)."
            )
        if not isinstance(task_generator, TaskGenerator):
            raise ConfigError(
                f"task_generator is a {type(task_generator).__name__}; it must be one of this "
                "package, such as AGPTaskGenerator."
            )
        rewinds = isinstance(task_generator, LotteryTicketTaskGenerator)
        if reset_weight and not rewinds:
            raise ConfigError(
                "reset_weight=True rewinds the weights, which lottery tickets do: use "
                "LotteryTicketTaskGenerator, or leave it out."
            )
        self._generator = task_generator
        self._options: dict[str, Any] = {
            **task_generator.options,
            "pruning_algorithm": _maker(pruner),
            "finetuner": finetuner,
            "speedup": speedup,
            "dummy_input": dummy_input,
            "evaluator": evaluator,
            **({"reset_weight": reset_weight} if rewinds else {}),
        }
        self.schedule: Any = None

    def compress(self) -> Compressed[nn.Module, Masks]:
        """Go through the schedule, and return the model, wrapped or made small, and its masks."""
        made: Any = get_pruner(self._generator.schedule, framework="torch")
        self.schedule = made(self._generator.model, self._generator.config_list, **self._options)
        model, masks = self.schedule.compress()
        return Compressed(model, masks)

    def get_best_result(
        self,
    ) -> tuple[int, nn.Module, Masks, float | None, list[dict[str, Any]]]:
        """Return number, model, masks, score and config of the result."""
        if self.schedule is None:
            raise PruneError("There is no result yet: call compress() first.")
        best: tuple[int, nn.Module, Masks, float | None, list[dict[str, Any]]]
        best = self.schedule.get_best_result()
        return best


def _maker(pruner: Pruner) -> Callable[..., Pruner]:
    """Return what makes pruners, as a class does: this one, bound to the model that it is given."""

    def make(model: nn.Module, config_list: ConfigList, **params: Any) -> Pruner:
        if params:
            raise ConfigError(
                f"{next(iter(params))} is an argument of {type(pruner).__name__}; give it there."
            )
        pruner.reset(model, config_list)
        return pruner

    make.__name__ = type(pruner).__name__
    capabilities = ("config_keys", "modes", "granularity", "needs_data", "needs_labels")
    vars(make).update({name: getattr(pruner, name) for name in capabilities})
    return make
