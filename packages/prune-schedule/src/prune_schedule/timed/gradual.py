"""Gradual pruning: during the user's training, or in rounds."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from typing import Any, ClassVar, Self

from torch import nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from prune_core import Compressed, ConfigError
from prune_core.compat import understands
from prune_core.config import load_config, parse
from prune_core.masking import Masks
from prune_core.schedule_keys import SCHEDULE_KEYS, timetables, without_schedule
from prune_core.timetable import Curve, Unit, as_curve, name_of
from prune_schedule.compat.positional import GRADUAL
from prune_schedule.run.delegating import one_shot_class
from prune_schedule.run.evaluation import Evaluate, Finetune
from prune_schedule.store.result_folder import ResultFolder
from prune_schedule.store.snapshot import Plain, Snapshots, Stateful
from prune_schedule.store.trials import Trials
from prune_schedule.timed.optimizer_steps import on_each_step, telling_optimizer
from prune_schedule.timed.timed_masks import TimedMasks
from prune_schedule.timed.training_data import TrainingData
from prune_speedup.search.user_functions import functions_of
from prune_toolkit.from_training import with_data

__all__ = ["GradualPruner"]

ConfigList = Sequence[Mapping[str, Any]] | str | PathLike[str]


class GradualPruner(TimedMasks):
    """Gradual pruning along a curve, with any registered one-shot algorithm.

    With `end_epoch` or `end_step` in the `config_list`, **it follows your own training**:
    `compress()` returns the wrapped model, and masks change with `update_epoch(epoch)` or with each
    step of `optimizer`. With `total_iteration`, **it runs rounds by itself**: `run()` prunes,
    fine-tunes and evaluates, from round 0 at the initial sparsity to round `total_iteration` at
    the final one.

    Args:
        model: The model, wrapped in place.
        config_list: The rules. `sparsity` or `final_sparsity` is reached at the end,
            `initial_sparsity` is where the curve begins; for training, `start_epoch`,
            `end_epoch` and `frequency`, or `start_step` and `end_step`, say when.
        pruning_algorithm: A registered pruner, or a class.
        total_iteration: After how many rounds the final sparsity is reached.
        curve: A registered schedule, or a function of `(progress, initial, final)`.
        optimizer: The optimizer whose steps are counted, also when Accelerate or Lightning have
            wrapped it: only steps that change weights, not those that accumulate gradients or that
            a gradient scaler skips. Its state is part of a checkpoint.
        log_dir: A folder for the result.
        keep_intermediate_result: Whether to write the results of all rounds there.
        finetune: Takes the model and trains it, once in each round.
        speedup: Whether `compress()`, `run()` and `get_best_result()` return a small copy, from
            which the masked channels have been removed. The model itself stays wrapped, so that a
            run can be resumed.
        dummy_input: An input of the model, for `speedup`.
        evaluate: Takes the model and returns its score. One that trains as well, such as
            `prune_filter.TorchEvaluator`, is also `finetune` unless there is another.
        pruning_params: Further arguments of the pruning algorithm.
        calibrate: Runs the model on some batches, for data-driven criteria.
            Without it, data are collected from your training, or from `finetune`, since masks
            were last made.
        checkpoint: A file from which the same call resumes.
        stateful: What else a checkpoint keeps, by name: learning-rate schedulers, samplers,
            anything with `state_dict()` and `load_state_dict()`.

    Example:
        >>> from torch import nn
        >>> from prune_toolkit import NormalSparsityAllocator, StraightMetricsCalculator
        >>> from prune_toolkit import WeightDataCollector
        >>> from prune_core import BasicPruner
        >>> class Smallest(BasicPruner):
        ...     def reset_tools(self):
        ...         self.data_collector = WeightDataCollector(self)
        ...         self.metrics_calculator = StraightMetricsCalculator()
        ...         self.sparsity_allocator = NormalSparsityAllocator(self, transform=abs)
        >>> model = nn.Sequential(nn.Linear(10, 10))
        >>> rules = [{"sparsity": 0.8, "op_types": ["Linear"]}]
        >>> pruner = GradualPruner(model, rules, Smallest, total_iteration=4, curve="linear")
        >>> [round(trial["sparsities"]["0"], 2) for trial in pruner.run().trials]
        [0.0, 0.2, 0.4, 0.6, 0.8]
    """

    default_curve: ClassVar[str] = "cubic"

    @understands(GRADUAL)
    def __init__(
        self,
        model: nn.Module,
        config_list: ConfigList,
        pruning_algorithm: str | Callable[..., Any] = "level",
        total_iteration: int | None = None,
        *,
        curve: str | Curve | None = None,
        optimizer: Optimizer | None = None,
        log_dir: str | PathLike[str] | None = None,
        keep_intermediate_result: bool = False,
        finetune: Finetune | None = None,
        speedup: bool = False,
        dummy_input: Any = None,
        evaluate: Evaluate | None = None,
        pruning_params: Mapping[str, Any] | None = None,
        calibrate: Callable[[nn.Module], Any] | None = None,
        checkpoint: str | PathLike[str] | None = None,
        stateful: Mapping[str, Stateful] | None = None,
    ) -> None:
        self.pruning_algorithm = pruning_algorithm
        self.total_iteration: int | None = _rounds(total_iteration)
        self.curve = curve or self.default_curve
        self.optimizer = optimizer
        if optimizer is not None:
            telling_optimizer(optimizer)
        functions = functions_of(finetune, evaluate)
        self.finetuner, self.evaluator = functions.finetune, functions.evaluate
        self.speedup, self.dummy_input = speedup, functions.or_example(dummy_input)
        if speedup and self.dummy_input is None:
            raise ConfigError(
                "speedup is True and dummy_input is missing: give an input of the model, with "
                "which it is traced."
            )
        self.pruning_params = dict(pruning_params or {})
        if calibrate is not None:
            self.pruning_params["calibrate"] = calibrate
        self.checkpoint, self.stateful = checkpoint, dict(stateful or {})
        for name in ("model", "schedule", "optimizer", "training"):
            if name in self.stateful:
                raise ConfigError(f"stateful has {name!r}, which is kept anyway; leave it out.")
        self._folder = ResultFolder(log_dir, keep_intermediate_result)
        self._curve = as_curve(self.curve)
        self._hook: RemovableHandle | None = None
        self.reset(model, config_list)

    def reset(self, model: nn.Module, config_list: ConfigList) -> None:
        """Start over with another model or config; the old model is unwrapped first.

        Args:
            model: The model to prune from now on.
            config_list: The rules, or the path of a file that holds them.
        """
        if isinstance(config_list, str | PathLike):
            config_list = load_config(config_list)
        algorithm = one_shot_class(self.pruning_algorithm)
        entries = parse(config_list, (*getattr(algorithm, "config_keys", ()), *SCHEDULE_KEYS))
        self.timetables = timetables(entries, self.total_iteration)
        if self._hook is not None:
            self._hook.remove()
            self._hook = None
        if hasattr(self, "_training"):
            self._training.stop()
        params = with_data(algorithm, self.pruning_params)
        self._make_one_shot(algorithm, params, model, without_schedule(config_list))
        try:
            self._training = TrainingData(self.one_shot)
        except ConfigError:
            self.unwrap()
            raise
        self.config_list = config_list
        self._now: dict[Unit, int] = {"epoch": 0, "step": 0, "round": 0}
        self._in_force: dict[int, float] = {}
        self._done, self._started, self._resumed, self._trained = 0, False, False, False
        self.trials = Trials()
        self._snapshots = self._make_snapshots()

    # --- the two ways to run --------------------------------------------------------------

    def compress(self, example_inputs: Any = None) -> Compressed[nn.Module, Masks]:
        """Start, or do everything.

        Args:
            example_inputs: An input of the model. With it, the final masks also cover what comes
                after a masked channel, such as the bias of a normalisation.

        Returns:
            The wrapped model and the masks: those after all rounds, or those to begin with where
            training drives the schedule. After rounds with `speedup`, a small copy and the masks
            that it still needs.
        """
        if self.total_iteration is not None:
            result = self.run()
            if example_inputs is None or self.speedup:
                return Compressed(result.model, result.masks)
            return Compressed(result.model, self.close_masks(example_inputs))
        if not self._started:
            self._started = True
            if self.checkpoint is not None:
                self._resumed = self._snapshots.restore()
            if not (self._at_the_end and self._in_force):
                self._training.follow()
            self._prune()
            if self.optimizer is not None:
                self._hook = on_each_step(self.optimizer, self.step)
        return Compressed(self.bound_model, self.masks)

    # --- state ----------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return the masks and the position on the curve, as tensors and plain data."""
        return {
            "now": dict(self._now),
            "done": self._done,
            "in_force": dict(self._in_force),
            "trials": json.dumps(self.trials),
            "masks": self.masks if any(self._in_force.values()) else {},
            "seen": self._training.own(),
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> Self:
        """Resume from a state; it must be that of a schedule over the same layers.

        Args:
            state_dict: What `state_dict()` returned.
        """
        missing = {"now", "done", "in_force", "trials", "masks"} - set(state_dict)
        if missing:
            raise ConfigError(
                f"The state has no {min(missing)!r}; it is not what state_dict() of a schedule "
                "returned."
            )
        self.one_shot.load_masks(state_dict["masks"])
        self._now = dict(state_dict["now"])
        self._done = state_dict["done"]
        self._in_force = dict(state_dict["in_force"])
        self._tell(self._in_force)
        self.trials = Trials(json.loads(state_dict["trials"]))
        self._training.put(state_dict.get("seen", {}))
        return self

    def _keep(self) -> None:
        if self.checkpoint is not None:
            self._snapshots.save()

    def _make_snapshots(self) -> Snapshots:
        parts: dict[str, Stateful] = {"model": Plain(self), "schedule": self}
        if self.optimizer is not None:
            parts["optimizer"] = self.optimizer
        if self._training.needed:
            parts["training"] = self._training
        algorithm = self.pruning_algorithm
        run = {
            "schedule": type(self).__name__,
            "pruning_algorithm": algorithm if isinstance(algorithm, str) else algorithm.__name__,
            "curve": name_of(self.curve),
            "total_iteration": self.total_iteration,
            "config_list": json.loads(json.dumps(list(self.config_list), default=str)),
        }
        return Snapshots(self.checkpoint, run, {**parts, **self.stateful})


def _rounds(total: Any) -> int | None:
    if total is not None and (not isinstance(total, int) or isinstance(total, bool) or total < 1):
        raise ConfigError(f"total_iteration is {total!r}; it must be a whole number of at least 1.")
    return total
