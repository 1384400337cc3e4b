"""Sparsity that grows: while the user trains, or round by round."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from time import perf_counter
from typing import Any, ClassVar, Self

from torch import nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from prune_core import Compressed, ConfigError, PruneError
from prune_core.callables import check_takes_model
from prune_core.compat import understands
from prune_core.config import load_config, parse
from prune_schedule.compat import GRADUAL
from prune_schedule.curve import Curve, as_curve, name_of
from prune_schedule.evaluation import Evaluate, Finetune, score_of
from prune_schedule.growth import Unit
from prune_schedule.keeping import ResultFolder
from prune_schedule.result import Result
from prune_schedule.rounds import tidied
from prune_schedule.rules import SCHEDULE_KEYS, growths, without_schedule
from prune_schedule.snapshot import Snapshots, Stateful
from prune_schedule.through import Masks, ThroughPruner, one_shot_class, set_sparsity
from prune_schedule.trials import Trials

__all__ = ["GradualPruner"]

ConfigList = Sequence[Mapping[str, Any]] | str | PathLike[str]
_log = logging.getLogger("prune_schedule")


class GradualPruner(ThroughPruner):
    """Prunes more and more along a curve, with any registered one-shot algorithm.

    With `end_epoch` or `end_step` in the `config_list`, **training drives it**: `compress()`
    returns the wrapped model, and masks grow with `update_epoch(epoch)` or with each step of
    `optimizer`. With `total_iteration`, **it goes through rounds by itself**: `run()` prunes,
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
        optimizer: Whose steps are counted; its state is part of a checkpoint.
        log_dir: A folder for the result, and for those of all rounds if asked.
        keep_intermediate_result: Whether it gets the results of all rounds.
        finetune: Takes the model and trains it, once in each round.
        speedup: Whether `get_best_result()` returns a model that has been made small.
        dummy_input: An input of the model, for `speedup`.
        evaluate: Takes the model and returns its score.
        pruning_params: Further arguments of the pruning algorithm.
        calibrate: The same argument of the pruning algorithm, for those that look at data.
        checkpoint: A file from which the same call goes on where it was.
        stateful: What else a checkpoint keeps, by name: learning-rate schedulers, samplers, all
            that has `state_dict()` and `load_state_dict()`.

    Example:
        >>> from torch import nn
        >>> from prune_core.tools import NormalSparsityAllocator, StraightMetricsCalculator
        >>> from prune_core.tools import WeightDataCollector
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
        self.finetuner, self.evaluator = finetune, evaluate
        check_takes_model("finetune", finetune, "the model and trains it")
        check_takes_model("evaluate", evaluate, "the model and returns its score")
        self.speedup, self.dummy_input = speedup, dummy_input
        if speedup and dummy_input is None:
            raise ConfigError(
                "speedup is True and dummy_input is missing: give an input of the model, with "
                "which it is traced."
            )
        self.pruning_params = dict(pruning_params or {})
        if calibrate is not None:
            self.pruning_params["calibrate"] = calibrate
        self.checkpoint, self.stateful = checkpoint, dict(stateful or {})
        for name in ("model", "schedule", "optimizer"):
            if name in self.stateful:
                raise ConfigError(f"stateful has {name!r}, which is kept anyway; leave it out.")
        self._folder = ResultFolder(log_dir, keep_intermediate_result)
        self._curve = as_curve(self.curve)
        self._hook: RemovableHandle | None = None
        self.reset(model, config_list)

    def reset(self, model: nn.Module, config_list: ConfigList) -> None:
        """Start anew with another model or another config; an old model is unwrapped first."""
        if isinstance(config_list, str | PathLike):
            config_list = load_config(config_list)
        algorithm = one_shot_class(self.pruning_algorithm)
        entries = parse(config_list, (*getattr(algorithm, "config_keys", ()), *SCHEDULE_KEYS))
        self.growths = growths(entries, self.total_iteration)
        if self._hook is not None:
            self._hook.remove()
            self._hook = None
        self._make_one_shot(algorithm, self.pruning_params, model, without_schedule(config_list))
        self.config_list = config_list
        self._now: dict[Unit, int] = {"epoch": 0, "step": 0, "round": 0}
        self._in_force: dict[int, float] = {}
        self._done, self._started, self._resumed = 0, False, False
        self.trials = Trials()
        self._snapshots = self._make_snapshots(model)

    # --- the clock ------------------------------------------------------------------------

    @property
    def epoch(self) -> int:
        """The epoch that `update_epoch()` spoke of last; a loop goes on from it."""
        return self._now["epoch"]

    @property
    def steps(self) -> int:
        """How many optimizer steps have been made."""
        return self._now["step"]

    def update_epoch(self, epoch: int) -> None:
        """Hear that an epoch begins; masks grow if it is one of those at which they do."""
        self._only_while_training("update_epoch()")
        if self._resumed and epoch == self.epoch:
            # What the user's program has drawn since it started again does not count.
            self._snapshots.restore_random_numbers()
            self._resumed = False
            return
        self._now["epoch"] = max(epoch, self.epoch)
        super().update_epoch(epoch)
        self._prune()
        self._keep()

    def step(self) -> None:
        """Hear that an optimizer step was made; called for each step of `optimizer`."""
        self._only_while_training("step()")
        self._now["step"] += 1
        super().step()
        if self._prune():
            self._keep()

    def _prune(self) -> bool:
        """Put the sparsities of now in force, and return whether they are others than before."""
        wanted = {
            index: growth.sparsity(self._now[growth.unit], self._curve)
            for index, growth in self.growths.items()
        }
        if wanted == self._in_force:
            return False
        self._tell(wanted)
        # A sparsity of 0 needs no data, no scores and no masks.
        if any(wanted.values()):
            self.one_shot.compress()
        self._in_force = wanted
        return True

    def _tell(self, wanted: Mapping[int, float]) -> None:
        for wrapper in self.get_modules_wrapper().values():
            if wrapper.config["entry"] in wanted:
                set_sparsity(wrapper.config, wanted[wrapper.config["entry"]])

    def _only_while_training(self, call: str) -> None:
        if self.total_iteration is not None:
            raise PruneError(
                f"{call} is for a schedule that training drives; this one has total_iteration="
                f"{self.total_iteration} and goes through its rounds in run() or compress()."
            )

    # --- the two ways to run --------------------------------------------------------------

    def compress(self, example_inputs: Any = None) -> Compressed[nn.Module, Masks]:
        """Start, or do everything.

        Args:
            example_inputs: An input of the model. With it, the final masks also cover what comes
                after a masked channel, such as the bias of a normalisation.

        Returns:
            The wrapped model and the masks: those after all rounds, or those to begin with where
            training drives the schedule.
        """
        if self.total_iteration is not None:
            result = self.run()
            if example_inputs is not None:
                self.close_masks(example_inputs)
            return Compressed(result.model, self.masks)
        if not self._started:
            self._started = True
            if self.checkpoint is not None:
                self._resumed = self._snapshots.restore()
            self._prune()
            if self.optimizer is not None:
                self._hook = self.optimizer.register_step_post_hook(lambda *_: self.step())
        return Compressed(self.bound_model, self.masks)

    def run(self, finetune: Finetune | None = None, evaluate: Evaluate | None = None) -> Result:
        """Go through all rounds that are left: prune, fine-tune, evaluate.

        Ctrl-C goes back to the end of the last complete round and returns that. What `finetune`
        raises is raised, with the model wrapped as it is then; an `evaluate` that fails costs a
        score and a warning.

        Args:
            finetune: Takes the model and trains it; `finetune` of the pruner unless given.
            evaluate: Takes the model and returns its score; `evaluate` of the pruner unless given.
        """
        if self.total_iteration is None:
            raise PruneError(
                "run() goes through total_iteration rounds, and that was not given. With "
                "'end_epoch' or 'end_step' in the config_list, call compress() and train."
            )
        finetune, evaluate = finetune or self.finetuner, evaluate or self.evaluator
        if self._done == 0:
            self._snapshots.restore()
        complete = True
        try:
            while self._done <= self.total_iteration:
                self.trials.append(self._round(finetune, evaluate))
                self._done += 1
                self._snapshots.save()
                self._folder.add(self._done - 1, self)
        except KeyboardInterrupt:
            if not self._snapshots.restore():
                raise
            complete = False
            _log.warning("stopped after round %d of %d", self._done - 1, self.total_iteration)
        self._folder.finish(self)
        return self._result(complete)

    def _round(self, finetune: Finetune | None, evaluate: Evaluate | None) -> dict[str, Any]:
        began = perf_counter()
        self._now["round"] = self._done
        score = problem = None
        model = self.bound_model
        with tidied(model):
            self._prune()
            if finetune is not None:
                finetune(model)
        with tidied(model):
            if evaluate is not None:
                score, problem = score_of(evaluate, model)
        sparsity = max(self._in_force.values(), default=0.0)
        seconds = perf_counter() - began
        _log.info(
            "round %d of %d: sparsity %.1f %%, score %s, %.1f s",
            *(self._done, self.total_iteration, 100 * sparsity, score, seconds),
        )
        return {
            "trial": self._done,
            "sparsity": sparsity,
            "score": score,
            "seconds": round(seconds, 3),
            "problem": problem,
            "sparsities": self.sparsities,
        }

    # --- results --------------------------------------------------------------------------

    def _result(self, complete: bool) -> Result:
        score = self.trials[-1]["score"] if self.trials else None
        return Result(self.bound_model, self.masks, score, self.sparsities, self.trials, complete)

    def get_best_result(
        self,
    ) -> tuple[int, nn.Module, Masks, float | None, list[dict[str, Any]]]:
        """Return number, model, masks, score and config of the last complete round.

        The last round is the one with the sparsity that was asked for; one before it has a better
        score because it is denser. The model is a copy without wrappers: zeros where masked, or
        made small, with the masks that are left, if `speedup` was asked for.
        """
        if not self._done:
            raise PruneError("There is no result yet: call compress() or run() first.")
        model, masks = self._finished(self.dummy_input if self.speedup else None)
        return self._done - 1, model, masks, self.trials[-1]["score"], self.reached_config

    # --- state ----------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return the masks and the place on the curve, as tensors and plain data."""
        return {
            "now": dict(self._now),
            "done": self._done,
            "in_force": dict(self._in_force),
            "trials": json.dumps(self.trials),
            "masks": self.masks if any(self._in_force.values()) else {},
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> Self:
        """Go on from a state; it must be one of a schedule over the same layers."""
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
        return self

    def _keep(self) -> None:
        if self.checkpoint is not None:
            self._snapshots.save()

    def _make_snapshots(self, model: nn.Module) -> Snapshots:
        parts: dict[str, Stateful] = {"model": model, "schedule": self}
        if self.optimizer is not None:
            parts["optimizer"] = self.optimizer
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
