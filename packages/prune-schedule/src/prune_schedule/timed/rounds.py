"""Iterative pruning: rounds of prune, fine-tune, evaluate."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from time import perf_counter
from typing import Any

from torch import nn

from prune_core import ConfigError, PruneError
from prune_core.masking import Masks
from prune_core.progress import Task
from prune_core.timetable import Timetable
from prune_schedule.run.delegating import DelegatingPruner
from prune_schedule.run.evaluation import Evaluate, Finetune, Score, score_of
from prune_schedule.run.isolation import tidied
from prune_schedule.run.result import Result
from prune_schedule.store.result_folder import ResultFolder
from prune_schedule.store.snapshot import Snapshots
from prune_schedule.timed.training_data import TrainingData
from prune_speedup.search.user_functions import functions_of

__all__ = ["RoundsPruner"]


class RoundsPruner(DelegatingPruner):
    """Has `run()`; a subclass says in `prune_for_round()` what is pruned in each round.

    Attributes:
        total_iteration: The number of the last round, the first one being 0.
        timetables: How the sparsity of each entry of the config grows.
    """

    total_iteration: int | None
    finetuner: Finetune | None
    evaluator: Evaluate | None
    timetables: dict[int, Timetable]
    speedup: bool
    dummy_input: Any
    _done: int
    _folder: ResultFolder
    _snapshots: Snapshots
    _training: TrainingData

    @abstractmethod
    def prune_for_round(self, number: int) -> float:
        """Prune to the sparsity of a round, and return it."""

    def run(self, finetune: Finetune | None = None, evaluate: Evaluate | None = None) -> Result:
        """Run all remaining rounds: prune, fine-tune, evaluate.

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
        functions = functions_of(finetune or self.finetuner, evaluate or self.evaluator)
        self._check_data(functions.finetune)
        if self._done == 0:
            self._snapshots.restore()
        complete, rounds = True, self.total_iteration + 1
        try:
            with Task(type(self).__name__, rounds, "round", self._plan(), announce=True) as task:
                for trial in self.trials:
                    task.advance(_said(trial), replayed=True)
                while self._done < rounds:
                    trial = self._round(functions.finetune, functions.evaluate, task)
                    self.trials.append(trial)
                    self._done += 1
                    self._snapshots.save()
                    self._folder.add(self._done - 1, self)
                    task.advance(_said(trial))
        except KeyboardInterrupt:
            if not self._snapshots.restore():
                raise
            complete = False
        self._folder.finish(self)
        return self._result(complete)

    def _plan(self) -> str:
        final = max(growth.final for growth in self.timetables.values())
        return f"to a sparsity of {final:.1%} in {len(self.get_modules_wrapper())} layers"

    def _check_data(self, finetune: Finetune | None) -> None:
        """Refuse rounds in which the criterion would get no data."""
        if not self._training.needed or self._done:
            return
        name = type(self.one_shot).__name__
        if finetune is None:
            raise ConfigError(
                f"{name} needs activations or gradients, and nothing runs the model here. Give "
                "finetune=, from whose training they are collected, or calibrate=, a function that "
                "takes the model and runs it on some batches."
            )

    def _round(
        self, finetune: Finetune | None, evaluate: Evaluate | None, task: Task
    ) -> dict[str, Any]:
        began, score, model = perf_counter(), Score(None), self.bound_model
        with tidied(model):
            sparsity = self.prune_for_round(self._done)
            if finetune is not None:
                task.say(f"sparsity {sparsity:.1%}, fine-tuning")
                with self._training.following():
                    finetune(model)
        with tidied(model):
            if evaluate is not None:
                task.say(f"sparsity {sparsity:.1%}, evaluating")
                score = score_of(evaluate, model)
                score.warn()
        return {
            "trial": self._done,
            "sparsity": sparsity,
            "score": score.value,
            "seconds": round(perf_counter() - began, 3),
            "problem": score.problem,
            "sparsities": self.sparsities,
        }

    # --- results --------------------------------------------------------------------------

    def _result(self, complete: bool) -> Result:
        model, masks = self.bound_model, self.masks
        if self.speedup and complete:
            model, masks = self._finished(self.dummy_input)
        score = self.trials[-1]["score"] if self.trials else None
        return Result(model, masks, score, self.sparsities, self.trials, complete)

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


def _said(trial: Mapping[str, Any]) -> str:
    score = "" if trial["score"] is None else f", score {trial['score']:.4g}"
    return f"sparsity {trial['sparsity']:.1%}{score}"
