"""Runs the trials of a search on a Keras model."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from math import isfinite
from pathlib import Path
from typing import Any, ClassVar

import keras

from prune_core.errors import PruneError, warn
from prune_core.options import ChecksOptions
from prune_core.progress import Task
from prune_core.scores import number_from
from prune_speedup.search.plans import DeadEndError, Plan, Plans, Sparsities
from prune_speedup.search.trials_file import Memory, check_same_plan, weights_ahead
from prune_speedup.search.weights import Budget
from prune_tf.masks import hold_masks, masks_of, put_masks
from prune_tf.pruning.closing import masks_that_go
from prune_tf.pruning.pruner import Pruner
from prune_tf.pruning.targets import Target
from prune_tf.search.model_budget import ModelBudget
from prune_tf.search.start import Start
from prune_tf.seeds import seeded
from prune_tf.speedup.find_units import both
from prune_tf.variables import Kept

__all__ = ["SIGNS", "TrialRunner", "score_from"]

SIGNS = {"maximize": 1.0, "minimize": -1.0}


class TrialRunner(metaclass=ChecksOptions):
    """Makes the masks of each plan, scores them, and sends the score to the search.

    Attributes:
        bound_model: The model.
        pruner: The pruner that makes the masks.
        optimize_mode: `"maximize"` or `"minimize"`.
        seed: Of the random numbers of all trials.
        history: The trials: number, sparsity of each layer, and score.
        best: What the search would end with, once there is something.
        best_score: Its score.
    """

    # Trials from this one on are fine-tuned; None where a search trains between its rounds.
    first_tuned: ClassVar[int | None] = 1

    bound_model: keras.Model
    pruner: Pruner
    evaluate: Callable[[keras.Model], Any]
    finetune: Callable[[keras.Model], Any] | None
    optimize_mode: str
    seed: int
    target: Mapping[str, float] | None
    budget: Budget
    history: list[dict[str, Any]]
    best: Sparsities | None
    best_score: float | None
    _start: Start
    _trials: Memory
    _run: dict[str, Any]
    # The number of the round that the search has ended last.
    _adopted: int
    _best_trial: int | None
    # What fine-tuning has made of the best trial since: its number, its score, its weights.
    _tuned: tuple[int, float, Kept] | None

    # --- what a search is -------------------------------------------------------------------

    @abstractmethod
    def plans(self) -> Plans:
        """Yield the sparsities to try; receive the score, higher is better.

        A list of plans gets a list of scores. A search calls `keep()` with the best plan so far.
        """

    @property
    def settings(self) -> dict[str, Any]:
        """What the plans depend on, as plain data; trials of other settings are refused."""
        return {}

    @property
    def length(self) -> int | None:
        """The number of trials, or None if it is not known."""
        return None

    def keep(self, sparsities: Sparsities, score: float | None, trial: int | None = None) -> None:
        """Remember the best plan so far.

        Args:
            sparsities: The plan.
            score: Its score, as it was sent.
            trial: The number of its trial, if what that drew and trained belongs to the result.
        """
        self.best, self._best_trial = dict(sparsities), trial
        self.best_score = None if score is None else SIGNS[self.optimize_mode] * score

    def adopt(self, number: int, trial: int, plan: Plan, score: float | None) -> None:
        """Let all further trials begin with the weights and masks of a plan, and keep it.

        Args:
            number: The number of the round that this ends, from 1.
            trial: The number of the trial whose fine-tuning it was.
            plan: Its sparsities.
            score: Its score, as it was sent.
        """
        self._adopted = number
        if number > self._start.round:  # else by an earlier start, whose weights have been read
            self._make_again(plan, trial)
            self._start.move(number)
            if (path := self._weights_file) is not None:
                self._start.write(path, self._run)
        self._tuned = None
        self.keep(plan, score)

    @property
    @abstractmethod
    def _weights_file(self) -> Path | None:
        """Where a search that trains keeps weights."""

    # --- trying it ----------------------------------------------------------------------------

    def _search(self, task: Task) -> bool:
        """Try what there is to try, and return whether the search came to its own end."""
        plans, answer = self.plans(), None
        try:
            while True:
                asked = plans.send(answer)
                batch = asked if isinstance(asked, list) else [asked]
                scores = [self._tried(plan, task) for plan in batch]
                answer = scores if isinstance(asked, list) else scores[0]
        except StopIteration:
            return True
        except (DeadEndError, KeyboardInterrupt) as end:
            if self.best is None:
                raise
            self._start.put_back()
            why = str(end) or f"{type(self).__name__} was interrupted."
            warn(f"{why} The result is the best so far.")
            return False

    def _put_best(self, best: Plan) -> None:
        """Put the result in force."""
        if self._best_trial is None:
            self._put(best)
        else:
            self._make_again(best, self._best_trial)

    def _tried(self, plan: Plan, task: Task) -> float:
        """Return what a plan scores, negative where less is better."""
        number = len(self.history)
        known = self._trials.known([number]).get(number)
        if known is None:
            trial = self._trials.add(self._try(number, plan))
        else:
            trial = known
            check_same_plan(trial, plan)
        self.history.append(trial)
        task.advance(f"score {trial['score']:g}", replayed=known is not None)
        return SIGNS[self.optimize_mode] * float(trial["score"])

    def _try(self, number: int, plan: Plan) -> dict[str, Any]:
        if self._adopted < self._start.round:
            raise weights_ahead(self._weights_file)
        try:
            with seeded(self._seed_of(number)):
                self._put(plan)
                tuned = self.first_tuned is not None and number >= self.first_tuned
                if tuned:
                    self._tune()
                score = score_from(self.evaluate(self.bound_model))
            good = SIGNS[self.optimize_mode] * score
            if tuned and self.finetune and (self._tuned is None or good > self._tuned[1]):
                self._tuned = number, good, self._start.now()
        finally:
            self._start.put_back()
        return {"trial": number, "sparsities": dict(plan), "score": score}

    def _make_again(self, plan: Plan, trial: int) -> None:
        """Mask and train as a trial has done."""
        with seeded(self._seed_of(trial)):
            self._put(plan)
            if self._tuned is not None and self._tuned[0] == trial:
                self._tuned[2].restore()
            else:
                self._tune()

    def _put(self, plan: Plan) -> None:
        """Mask as much as a plan says."""

        def ratio(target: Target) -> float:
            return plan[target.name]

        if not any(plan.values()):
            return
        if not isinstance(self.budget, ModelBudget):
            self.pruner.compress_at(ratio)
            return
        # A normalisation after a masked channel still adds its offset, until it is removed.
        masks = masks_that_go(self.pruner, ratio)
        put_masks(self.bound_model, both(masks_of(self.bound_model), masks))

    def _tune(self) -> None:
        if self.finetune is not None:
            self.finetune(self.bound_model)
            hold_masks(self.bound_model)

    def _seed_of(self, number: int) -> int:
        return self.seed * 1_000_003 + number


def score_from(returned: Any) -> float:
    """Return the score that was returned."""
    try:
        score = number_from(returned)
    except TypeError as error:
        raise PruneError(f"{error}; a score has to be a number.") from error
    if not isfinite(score):
        raise PruneError(f"evaluate returned {score}; a score has to be a number.")
    return score
