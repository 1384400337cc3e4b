"""Searches that fine-tune the model before each evaluation."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, ClassVar

from torch import nn

from prune_core.compat import understands
from prune_core.masking import Masks
from prune_schedule.compat.positional import SEARCH
from prune_schedule.run.evaluation import Evaluate, Finetune
from prune_schedule.run.isolation import tidied
from prune_schedule.run.processes import from_first
from prune_schedule.run.result import Result
from prune_schedule.search.base import ConfigList, SearchPruner
from prune_schedule.search.plans import Plan, Sparsities
from prune_schedule.store.snapshot import Snapshots, Stateful
from prune_speedup.search.trials_file import weights_ahead
from prune_speedup.search.user_functions import functions_of
from prune_toolkit.running.random_state import seeded

__all__ = ["FinetunedSearchPruner"]


class FinetunedSearchPruner(SearchPruner):
    """Fine-tunes in each trial, from weights that are the same for all trials of a round.

    What fine-tuning made of the best trial is what the next round begins with, once the search
    calls `adopt()`.

    Args:
        model: The model, wrapped in place. Nothing but `finetune` changes its weights.
        config_list: The rules. The sparsity of an entry is that of all its layers together.
        evaluate: Takes the model and returns its score. One that trains as well, such as
            `prune_filter.TorchEvaluator`, is also `finetune` unless there is another.
        optimize_mode: `"maximize"` or `"minimize"`.
        finetune: Takes the model and trains it a little, before each evaluation.
        stateful: What is restored with the weights, by name, such as the optimizer of `finetune`.
        dummy_input: An input of the model, as for every search.
        **more: Further arguments of every search.
    """

    # Trials before this one are of the model as it was given.
    first_tuned: ClassVar[int] = 1

    @understands(SEARCH)
    def __init__(
        self,
        model: nn.Module,
        config_list: ConfigList,
        evaluate: Evaluate | None = None,
        optimize_mode: str = "maximize",
        *,
        finetune: Finetune | None = None,
        stateful: Mapping[str, Stateful] | None = None,
        dummy_input: Any = None,
        **more: Any,
    ) -> None:
        functions = functions_of(finetune, evaluate)
        self.finetune, self.stateful = functions.finetune, dict(stateful or {})
        super().__init__(
            model,
            config_list,
            functions.evaluate,
            optimize_mode,
            dummy_input=functions.or_example(dummy_input),
            **more,
        )

    def reset(self, model: nn.Module, config_list: ConfigList) -> None:
        """Start over with another model or config; the old model is unwrapped first."""
        super().reset(model, config_list)
        self._held = _Held()

    def run(self, evaluate: Evaluate | None = None, finetune: Finetune | None = None) -> Result:
        """Search, and put the best in force, with its fine-tuned weights.

        Args:
            evaluate: Takes the model and returns its score; that of the search unless given.
            finetune: Takes the model and trains it a little, before each evaluation.
        """
        functions = functions_of(finetune or self.finetune, evaluate or self.evaluator)
        self.finetune = functions.finetune
        return super().run(functions.evaluate)

    def prepare(self) -> None:
        """Load the weights to start from: those of an earlier run, or the current ones."""
        self._snapshots: Snapshots | None = None
        self._adopted = 0
        if self.finetune is None:
            return
        if not self._held.start:
            self._held.start = self._states()
        if (path := self._weights_file()) is not None:
            self._snapshots = Snapshots(path, self._identity(), {"tuned": self._held})
            self._snapshots.restore()
        self._base = self._held.masks

    def _try(self, number: int, plan: Plan, evaluate: Evaluate) -> dict[str, Any]:
        def tuned(model: nn.Module) -> Any:
            self._tune(number)
            return evaluate(model)

        if self._adopted < self._held.round:
            raise weights_ahead(self._weights_file())
        trial: dict[str, Any] = from_first(super()._try(number, plan, tuned))
        score, held = trial["score"], self._held
        if self.finetune is None or number < self.first_tuned or score is None:
            return trial
        if held.score is None or self._sign * score > held.score:
            held.best, held.trial, held.score = self._states(), number, self._sign * score
            self._save()
        return trial

    def _tune(self, number: int) -> None:
        """Fine-tune for a trial."""
        if self.finetune is None or number < self.first_tuned:
            return
        # What training draws does not depend on what making the masks has drawn.
        with seeded(self._seed_of(500_000 + number)), tidied(self.bound_model):
            self.finetune(self.bound_model)

    def adopt(self, number: int, trial: int, plan: Plan, score: float) -> None:
        """Let all further trials start from the weights of a trial, and keep it as the result.

        Args:
            number: The number of the round that this ends, from 1.
            trial: The number of the trial.
            plan: Its sparsities.
            score: Its score, as it was sent.
        """
        held = self._held
        self._adopted = number
        if number <= held.round:  # by an earlier start, whose weights have been restored
            self.keep(plan, score)
            return
        with seeded(self._seed_of(trial)), tidied(self.bound_model):
            self._put(plan)
            masks = {name: dict(tensors) for name, tensors in self.one_shot.masks.items()}
            if self.finetune is not None and held.trial != trial:
                # It was made where its weights were not kept: once more, with the same numbers.
                self._tune(trial)
                held.best = self._states()
        held.start, held.masks, held.round = held.best, masks, number
        held.best, held.trial, held.score = {}, -1, None
        self._base = masks
        # Before the file is written: whoever is interrupted then has weights and result of one.
        self.keep(plan, score)
        self._save()

    def _put_best(self, best: Sparsities) -> None:
        """Put the result in force, with the fine-tuned weights of its trial."""
        super()._put_best(best)
        trial = self._best_trial
        if self.finetune is None or trial is None:
            return
        if self._held.trial == trial:
            self._put_back(self._held.best)
        else:
            self._tune(trial)

    def _clear(self) -> None:
        super()._clear()
        if self._held.start:
            self._put_back(self._held.start)

    def _states(self) -> dict[str, Any]:
        with self.plain() as model:
            weights = {name: value.clone() for name, value in model.state_dict().items()}
        return {
            "model": weights,
            "stateful": {
                name: copy.deepcopy(part.state_dict()) for name, part in self.stateful.items()
            },
        }

    def _put_back(self, states: Mapping[str, Any]) -> None:
        with self.plain() as model:
            model.load_state_dict(states["model"])
        for name, part in self.stateful.items():
            part.load_state_dict(copy.deepcopy(states["stateful"][name]))

    def _save(self) -> None:
        if self._snapshots is not None:
            self._snapshots.save()


class _Held:
    """The weights that trials start from, and those of the best trial since."""

    def __init__(self) -> None:
        self.start: dict[str, Any] = {}
        self.masks: Masks = {}
        self.round = 0
        self.best: dict[str, Any] = {}
        self.trial = -1
        self.score: float | None = None

    def state_dict(self) -> dict[str, Any]:
        return dict(vars(self))

    def load_state_dict(self, state_dict: dict[str, Any], /) -> None:
        vars(self).update(state_dict)
