"""Sensitivity analysis: how much of each layer can go before the score drops."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from typing import Any, ClassVar

from torch import nn

from prune_core import Compressed, PruneWarning
from prune_core.callables import check_takes_model
from prune_core.compat import understands
from prune_core.masking import Masks
from prune_schedule.compat.positional import SEARCH
from prune_schedule.run.evaluation import Evaluate, Finetune
from prune_schedule.run.isolation import tidied
from prune_schedule.run.result import Result
from prune_schedule.search.base import ConfigList, SearchPruner
from prune_schedule.search.plans import Plan, Plans, Sparsities
from prune_schedule.store.snapshot import MasksInForce, Plain, Snapshots, Stateful
from prune_schedule.store.trials import Trials
from prune_speedup.search.sensitivity import RATIOS, Sensitivity
from prune_speedup.search.trials_file import weights_ahead
from prune_speedup.search.user_functions import functions_of
from prune_toolkit.running.random_state import seeded

__all__ = ["SensitivityPruner"]


class SensitivityPruner(SearchPruner):
    """Prunes each layer in proportion to how much it tolerates before the score drops.

    In each round, every layer is pruned alone, by more and more, until the score has dropped by
    `acc_drop_threshold` below that at the beginning of the round; the largest sparsity before that
    is what the layer tolerates. All layers are then pruned in proportion to it, by
    `sparsity_per_iter` of all weights, and fine-tuned with `finetune`. The next round starts there.

    Han et al., Learning both Weights and Connections for Efficient Neural Networks,
    https://arxiv.org/abs/1506.02626

    Args:
        model: The model, wrapped in place. Nothing but `finetune` changes its weights.
        config_list: The rules. The sparsity of an entry is that of all its layers together, and
            no layer loses more than `max_sparsity_per_layer`, 0.95 unless given.
        evaluate: Takes the model and returns its score. One that trains as well, such as
            `prune_filter.TorchEvaluator`, is also `finetune` unless there is another.
        finetune: Takes the model and trains it, after each round.
        pruning_algorithm: A registered pruner, or a class.
        sparsity_proportion_calc: Takes `{layer: sparsity that it tolerates}` and returns the
            shares in which layers are pruned; those themselves unless given.
        sparsity_per_iter: The ratio of all weights that each round prunes.
        acc_drop_threshold: How much the score may drop.
        log_dir: Another folder for the result.
        ratios: The sparsities that are tried.
        optimize_mode: `"maximize"` or `"minimize"`.
        experiment_data_dir: A folder for the study, from which the search can be resumed.
        stateful: What else is restored when a search is resumed, by name, such as the optimizer
            of `finetune`.
        dummy_input: An input of the model, for a target. With it, layers that can only lose
            channels together get the same sparsity.
        **more: `pruning_params`, `calibrate`, `storage`, `study_name`, `trial_timeout`, `seed`,
            `target` and `checkpoint`, as for every search.
    """

    default_cap: ClassVar[float] = 0.95

    @understands(SEARCH)
    def __init__(
        self,
        model: nn.Module,
        config_list: ConfigList,
        evaluate: Evaluate | None = None,
        finetune: Finetune | None = None,
        pruning_algorithm: str | Callable[..., Any] = "l1",
        sparsity_proportion_calc: Callable[[Sparsities], Mapping[str, float]] | None = None,
        sparsity_per_iter: float = 0.1,
        acc_drop_threshold: float = 0.05,
        log_dir: str | PathLike[str] | None = None,
        *,
        ratios: Sequence[float] = RATIOS,
        optimize_mode: str = "maximize",
        experiment_data_dir: str | PathLike[str] | None = None,
        stateful: Mapping[str, Stateful] | None = None,
        dummy_input: Any = None,
        **more: Any,
    ) -> None:
        self.analysis = Sensitivity(
            sparsity_per_iter, acc_drop_threshold, ratios, sparsity_proportion_calc
        )
        functions = functions_of(finetune, evaluate, alone=False)
        self.finetuner, self.stateful = functions.finetune, dict(stateful or {})
        self.sparsity_per_iter = sparsity_per_iter
        self.acc_drop_threshold = acc_drop_threshold
        super().__init__(
            model,
            config_list,
            functions.evaluate,
            optimize_mode,
            pruning_algorithm=pruning_algorithm,
            experiment_data_dir=experiment_data_dir,
            log_dir=log_dir,
            dummy_input=functions.or_example(dummy_input),
            **more,
        )

    def reset(self, model: nn.Module, config_list: ConfigList) -> None:
        """Start over with another model or config; the old model is unwrapped first."""
        super().reset(model, config_list)
        self._trained = _Counter()
        self._snapshots: Snapshots | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """What the plans depend on."""
        return self.analysis.settings

    def plans(self) -> Plans:
        """Yield plans that prune one layer more and more, and one for all after each round."""
        self._curves: list[dict[str, Any]] = []
        train = None if self.finetuner is None else self._train
        return self.analysis.walk(self.caps, self.budget, self.keep, self._seen, train)

    def _seen(self, number: int, layer: str, ratio: float, score: float | None) -> None:
        plain = None if score is None else self._sign * score
        point = {"round": number, "layer": layer, "sparsity": ratio, "score": plain}
        self._curves.append(point)

    # --- training between the rounds ---------------------------------------------------------

    def run(self, evaluate: Evaluate | None = None, finetune: Finetune | None = None) -> Result:
        """Search, and put the result in force.

        Args:
            evaluate: Takes the model and returns its score; that of the search unless given.
            finetune: Takes the model and trains it, after each round.
        """
        functions = functions_of(finetune or self.finetuner, evaluate or self.evaluator)
        self.finetuner = functions.finetune
        return super().run(functions.evaluate)

    def prepare(self) -> None:
        """Restore the weights that an earlier run of the same search has trained."""
        check_takes_model("finetune", self.finetuner, "the model and trains it")
        self._heard = 0
        if self.finetuner is None:
            return
        if self._snapshots is None:
            parts: dict[str, Stateful] = {"model": Plain(self), "masks": MasksInForce(self)}
            parts["trained"] = self._trained
            parts |= self.stateful
            self._snapshots = Snapshots(self._weights_file(), self._identity(), parts)
        if not self._back():
            self._snapshots.save()

    def _back(self) -> bool:
        """Restore the state after the last training, and return whether there was one."""
        assert self._snapshots is not None
        found = self._snapshots.restore()
        self._base = self.one_shot.masks if self._trained.count else {}
        return found

    def _try(self, number: int, plan: Plan, evaluate: Evaluate) -> dict[str, Any]:
        if self._heard < self._trained.count:
            raise weights_ahead(self._weights_file())
        return super()._try(number, plan, evaluate)

    def _train(self, number: int, current: Sparsities) -> None:
        self._heard = number
        if number <= self._trained.count:  # by an earlier start, whose weights have been restored
            return
        assert self.finetuner is not None
        assert self._snapshots is not None
        self._put(current)
        self._base = self.one_shot.masks
        try:
            with seeded(self._seed_of(500_000 + number)), tidied(self.bound_model):
                self.finetuner(self.bound_model)
            self._trained.count = number
            self.keep(current, None)  # the score that these had before is not theirs any more
            self._snapshots.save()
        except BaseException:
            self._back()
            raise

    def compress(
        self,
        example_inputs: Any = None,
        *,
        eval_args: Sequence[Any] | None = None,
        eval_kwargs: Mapping[str, Any] | None = None,
        finetune_args: Sequence[Any] | None = None,
        finetune_kwargs: Mapping[str, Any] | None = None,
        resume_sensitivity: str | PathLike[str] | None = None,
    ) -> Compressed[nn.Module, Masks]:
        """Search, put the result in force, and return the wrapped model and the masks.

        Args:
            example_inputs: An input of the model. With it, the masks also cover what comes after
                a masked channel, such as the bias of a normalisation.
            eval_args: What `evaluate` is called with instead of the model.
            eval_kwargs: And by name.
            finetune_args: What `finetune` is called with instead of the model.
            finetune_kwargs: And by name.
            resume_sensitivity: Has no effect: a search with an `experiment_data_dir` goes on by
                itself.
        """
        if resume_sensitivity is not None:
            warnings.warn(
                "SensitivityPruner: 'resume_sensitivity' has no effect here; with "
                "experiment_data_dir= a search goes on by itself.",
                PruneWarning,
                stacklevel=2,
            )
        self.evaluator = _called_with(self.evaluator, eval_args, eval_kwargs)
        self.finetuner = _called_with(self.finetuner, finetune_args, finetune_kwargs)
        return super().compress(example_inputs)

    @property
    def curves(self) -> Trials:
        """The score of each layer pruned alone: round, layer, sparsity and score."""
        return Trials(getattr(self, "_curves", []))


class _Counter:
    """The number of rounds that have been trained, as a part of a snapshot."""

    count = 0

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count}

    def load_state_dict(self, state_dict: dict[str, Any], /) -> None:
        self.count = state_dict["count"]


def _called_with(
    function: Callable[..., Any] | None,
    args: Sequence[Any] | None,
    kwargs: Mapping[str, Any] | None,
) -> Callable[..., Any] | None:
    """Return a function of the model that calls another with the arguments NNI took."""
    if function is None or (args is None and kwargs is None):
        return function
    given = functools.partial(function, *(args or ()), **(kwargs or {}))
    return lambda model: given()
