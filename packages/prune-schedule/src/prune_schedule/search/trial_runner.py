"""Runs the trials of a search, with one worker or several."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from operator import itemgetter
from time import perf_counter, sleep
from typing import Any

from prune_core import ConfigError, PruneError
from prune_core.errors import shown
from prune_core.masking import Masks
from prune_core.progress import Task
from prune_schedule.budget.model import ModelBudget
from prune_schedule.run.delegating import DelegatingPruner, set_sparsity
from prune_schedule.run.evaluation import Evaluate, Score, score_of
from prune_schedule.run.isolation import tidied
from prune_schedule.run.processes import from_first
from prune_schedule.search.plans import Plan, Plans, Sparsities
from prune_schedule.store.history import History
from prune_speedup.search.trials_file import check_same_plan
from prune_speedup.search.weights import Budget
from prune_toolkit.running.random_state import seeded

__all__ = ["TrialRunner"]


class TrialRunner(DelegatingPruner):
    """Makes the masks of each plan, scores them, and sends the score to the search.

    Attributes:
        optimize_mode: `"maximize"` or `"minimize"`.
        trial_timeout: The seconds that an evaluation may take.
        seed: Of the random numbers of all trials.
        best: What the search would end with, once there is something.
        best_score: Its score.
    """

    # Whether a small copy of the model is returned, from which what is masked has been removed.
    speedup: bool = False
    optimize_mode: str
    trial_timeout: float | None
    seed: int
    target: Mapping[str, float] | None
    dummy_input: Any
    best: Sparsities | None
    best_score: float | None
    _best_trial: int | None
    _budget: Budget | None
    _base: Masks
    _busy: bool

    # --- what a search is -----------------------------------------------------------------

    @abstractmethod
    def plans(self) -> Plans:
        """Yield the sparsities to try; receive the score, higher is better, None if it failed.

        A list of independent plans gets a list of scores; several workers share them.

        A search calls `keep()` with the best plan so far.
        """

    @property
    def settings(self) -> dict[str, Any]:
        """What the plans depend on, as plain data; a search with other settings is refused."""
        return {}

    def prepare(self) -> None:
        """Prepare for `plans()`; called each time that the search starts or resumes."""

    @property
    def length(self) -> int | None:
        """The number of trials, or None if it is not known."""
        return None

    def keep(self, sparsities: Sparsities, score: float | None, trial: int | None = None) -> None:
        """Remember the best plan so far.

        Args:
            sparsities: The plan.
            score: Its score, as it was sent.
            trial: The number of its trial, if the fine-tuned weights belong to the result.
        """
        self.best, self._best_trial = dict(sparsities), trial
        self.best_score = None if score is None else self._sign * score

    @property
    def _sign(self) -> float:
        return 1.0 if self.optimize_mode == "maximize" else -1.0

    @property
    @abstractmethod
    def sizes(self) -> dict[str, int]:
        """The number of weights of each layer."""

    @property
    @abstractmethod
    def budget(self) -> Budget:
        """What may be left, and which sparsities leave no more."""

    # --- trying it ------------------------------------------------------------------------

    def _search(self, evaluate: Evaluate, history: History, task: Task) -> None:
        plans, answer, latest = self.plans(), None, None
        while True:
            try:
                asked = plans.send(answer)
            except StopIteration:
                break
            finally:
                # Now the search has heard of the last trial, and knows whether it is the best.
                if latest is not None:
                    self._advance(task, latest)
            batch = asked if isinstance(asked, list) else [asked]
            for plan in batch:
                self._check_plan(plan)
            scores, latest = self._scores(batch, evaluate, history, task)
            answer = scores if isinstance(asked, list) else scores[0]
        task.said = f"best score {_shown(self.best_score)}"

    def _check_plan(self, plan: Plan) -> None:
        """Refuse a plan that cannot be tried.

        Raises:
            ConfigError: When a plan is not one sparsity for each layer.
        """
        who = f"{type(self).__name__}.plans() yielded"
        if not isinstance(plan, Mapping):
            raise ConfigError(
                f"{who} {shown(plan)}; it must yield {{layer: sparsity}}, or a list of such plans."
            )
        for name in [
            name for name in (*self.sizes, *plan) if (name in plan) != (name in self.sizes)
        ]:
            what = "a plan for" if name in plan else "a plan without"
            there = ", ".join(map(repr, self.sizes))
            raise ConfigError(f"{who} {what} {name!r}; a plan is for the layers {there}.")
        for name, sparsity in plan.items():
            if not (isinstance(sparsity, int | float) and 0 <= sparsity <= 1):
                raise ConfigError(
                    f"{who} {sparsity!r} for {name!r}; a sparsity is a number from 0 to 1."
                )

    def _scores(
        self, plans: Sequence[Plan], evaluate: Evaluate, history: History, task: Task
    ) -> tuple[list[float | None], dict[str, Any] | None]:
        """Let plans that do not depend on each other be evaluated, by whomever.

        Returns:
            Their scores, and the trial that came last, which has not been shown yet.
        """
        planned = dict(enumerate(plans, len(self.trials)))
        made: dict[int, dict[str, Any]] = {}
        latest, pause = None, 0.01
        while left := [number for number in planned if number not in made]:
            known, mine = from_first(self._known_or_mine(left, history))
            for number, trial in known.items():
                check_same_plan(trial, planned[number])
            if mine is not None:
                known |= {mine: self._make_trial(mine, planned[mine], evaluate, history)}
            self.trials += known.values()
            made |= known
            for trial in known.values():
                if latest is not None:
                    self._advance(task, latest)
                latest = trial
            # All that is left is under way elsewhere.
            pause = 0.01 if known else min(2 * pause, 0.5)
            if not known:
                sleep(pause)
        self.trials.sort(key=itemgetter("trial"))
        signed = (made[number]["score"] for number in planned)
        return [None if score is None else self._sign * score for score in signed], latest

    def _advance(self, task: Task, trial: Mapping[str, Any]) -> None:
        said = f"sparsity {trial['sparsity']:.1%}, score {_shown(trial['score'])}"
        # Until this process makes one, trials are those of an earlier start.
        task.advance(f"{said}, best {_shown(self.best_score)}", replayed=not self._busy)

    def _known_or_mine(
        self, left: Sequence[int], history: History
    ) -> tuple[dict[int, dict[str, Any]], int | None]:
        """Return what of some trials is known, or the one that this worker is to make."""
        known, mine = history.known(left), None
        if not known:
            mine = history.claim(left)
            known = history.known(left)
        return known, mine

    def _make_trial(
        self, number: int, plan: Plan, evaluate: Evaluate, history: History
    ) -> dict[str, Any]:
        self._busy = True
        try:
            trial = self._try(number, plan, evaluate)
        except BaseException:
            history.release(number)
            raise
        # Every process evaluates; the first one's score is everybody's.
        counts: dict[str, Any] = from_first(history.add(trial))
        return counts

    def _try(self, number: int, plan: Plan, evaluate: Evaluate) -> dict[str, Any]:
        began = perf_counter()
        # A trial that a killed process began is made again, with the same random numbers.
        with seeded(self._seed_of(number)), tidied(self.bound_model):
            self._put(plan)
            score = score_of(evaluate, self.bound_model, self.trial_timeout)
        if number == 0:
            self._check_first(score)
        score.warn()
        reached = self.sparsities
        sizes = self.sizes
        left = {} if self.target is None else {"left": self.budget.left(plan)}
        return {
            "trial": number,
            "sparsity": sum(reached[n] * sizes[n] for n in sizes) / sum(sizes.values()),
            **left,
            "score": score.value,
            "seconds": round(perf_counter() - began, 4),
            "problem": score.problem,
            "sparsities": dict(plan),
        }

    def _check_first(self, score: Score) -> None:
        """Stop a search whose first trial has no score: the others would not have one either.

        Raises:
            PruneError: In all processes, when the first one has none.
        """
        problem = from_first(score.problem)
        if problem is not None:
            raise PruneError(
                f"The first trial has no score ({problem}), so the search stops before it tries "
                "more. evaluate has to return a number for every model, such as 0.0 where one has "
                "failed."
            ) from score.error

    def _put(self, sparsities: Mapping[str, float]) -> None:
        """Let the one-shot pruner make masks of these sparsities."""
        self._clear()
        for name, wrapper in self.get_modules_wrapper().items():
            set_sparsity(wrapper.config, sparsities[name])
        if any(sparsities.values()):
            self.one_shot.compress()
        # A normalisation after a masked channel still adds its bias, until it is removed.
        if isinstance(self._budget, ModelBudget):
            self.one_shot.load_masks(self._budget.closing(self.one_shot.masks))
        elif self.speedup and any(sparsities.values()):
            self._close(self.dummy_input)

    def _put_best(self, best: Sparsities) -> None:
        """Put the result in force."""
        self._put(best)

    def _clear(self) -> None:
        """Go back to where every trial begins."""
        for wrapper in self.one_shot._all_wrappers():
            for name in wrapper.masked_names:
                wrapper._buffers[f"{name}_mask"] = None
        self.one_shot.load_masks(self._base)

    def _seed_of(self, number: int) -> int:
        return self.seed * 1_000_003 + number


def _shown(score: float | None) -> str:
    return "none" if score is None else f"{score:.4g}"
