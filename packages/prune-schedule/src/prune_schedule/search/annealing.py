"""Simulated annealing of the sparsity of each layer."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import asdict
from os import PathLike
from typing import Any, ClassVar

from torch import nn

from prune_core import ConfigError
from prune_core.compat import understands
from prune_schedule.compat.positional import ANNEALING
from prune_schedule.run.evaluation import Evaluate, Finetune
from prune_schedule.search.base import ConfigList
from prune_schedule.search.finetuned import FinetunedSearchPruner
from prune_schedule.search.plans import Plans, Sparsities
from prune_schedule.store.snapshot import Stateful
from prune_speedup.search.annealing import Annealing
from prune_speedup.search.user_functions import functions_of

__all__ = ["SimulatedAnnealingPruner"]


class SimulatedAnnealingPruner(FinetunedSearchPruner):
    """Searches for the sparsity of each layer that scores best, by simulated annealing.

    It begins with the uniform distribution, tries a random one in which larger layers lose more,
    and goes on from the better by ever smaller random changes. A change for the worse by ΔE is
    accepted with probability `exp(−ΔE / (T/T₀ · E))`, where E is the mean change so far: so what
    scale a score has does not matter. The temperature T falls from `start_temperature` T₀ to
    `stop_temperature`, by the factor `cool_down_rate` with each trial.

    Liu et al., AutoCompress: An Automatic DNN Structured Pruning Framework for Ultra-High
    Compression Rates, https://arxiv.org/abs/1907.03141

    Args:
        model: The model, wrapped in place. Nothing but `finetune` changes its weights.
        config_list: The rules. The sparsity of an entry is that of all its layers together, and
            no layer loses more than `max_sparsity_per_layer`, 0.99 unless given.
        evaluate: Takes the model and returns its score. One that trains as well, such as
            `prune_filter.TorchEvaluator`, is also `finetune` unless there is another.
        optimize_mode: `"maximize"` or `"minimize"`.
        start_temperature: The first temperature.
        stop_temperature: The temperature at which the search ends.
        cool_down_rate: The factor of the temperature with each trial.
        perturbation_magnitude: The largest change of a layer's sparsity, at first.
        tries: The number of changes tried at each temperature; several workers share them.
        experiment_data_dir: A folder for the study, from which the search can be resumed.
        pruning_algorithm: A registered pruner, or a class.
        pruning_params: Further arguments of the pruning algorithm.
        calibrate: Runs the model on some batches, for data-driven criteria.
        log_dir: Another folder for the result.
        storage: The URL of a database for the study instead.
        study_name: The name of the study.
        trial_timeout: The seconds that an evaluation may take.
        seed: Seed of the random numbers of the search.
        finetune: Takes the model and trains it, before each evaluation. The weights go back after
            each trial, and the result has those of the best.
        stateful: What is restored with the weights, by name: the optimizer of `finetune`, if it is
            created outside of it.
        speedup: Whether `compress()`, `run()` and `get_best_result()` return a small copy, from
            which what is masked has been removed. The model itself stays wrapped.
        dummy_input: An input of the model, for `speedup` or a target. With it, layers that can
            only lose channels together get the same sparsity.
        **more: `target` and `checkpoint`, as for every search.
    """

    first_tuned: ClassVar[int] = 0

    @understands(ANNEALING)
    def __init__(
        self,
        model: nn.Module,
        config_list: ConfigList,
        evaluate: Evaluate | None = None,
        optimize_mode: str = "maximize",
        *,
        start_temperature: float = 100.0,
        stop_temperature: float = 20.0,
        cool_down_rate: float = 0.9,
        perturbation_magnitude: float = 0.35,
        experiment_data_dir: str | PathLike[str] | None = None,
        tries: int = 1,
        pruning_algorithm: str | Callable[..., Any] = "level",
        pruning_params: Mapping[str, Any] | None = None,
        calibrate: Callable[[nn.Module], Any] | None = None,
        log_dir: str | PathLike[str] | None = None,
        storage: Any = None,
        study_name: str | None = None,
        trial_timeout: float | None = None,
        seed: int = 0,
        finetune: Finetune | None = None,
        stateful: Mapping[str, Stateful] | None = None,
        speedup: bool = False,
        dummy_input: Any = None,
        **more: Any,
    ) -> None:
        self.speedup = speedup
        if speedup and functions_of(finetune, evaluate).or_example(dummy_input) is None:
            raise ConfigError(
                "speedup is True and dummy_input is missing: give an input of the model, with "
                "which it is traced."
            )
        self.annealing = Annealing(
            start_temperature, stop_temperature, cool_down_rate, perturbation_magnitude, tries
        )
        super().__init__(
            model,
            config_list,
            evaluate,
            optimize_mode,
            finetune=finetune,
            stateful=stateful,
            pruning_algorithm=pruning_algorithm,
            pruning_params=pruning_params,
            calibrate=calibrate,
            experiment_data_dir=experiment_data_dir,
            log_dir=log_dir,
            dummy_input=dummy_input,
            storage=storage,
            study_name=study_name,
            trial_timeout=trial_timeout,
            seed=seed,
            **more,
        )

    def reset(self, model: nn.Module, config_list: ConfigList) -> None:
        """Start over with another model or config; the old model is unwrapped first."""
        super().reset(model, config_list)
        self._floors: Sparsities | None = None

    def prepare(self) -> None:
        """Prepare; the plans start from what had been pruned before the search."""
        self._floors = self.floors
        super().prepare()

    @property
    def floors(self) -> Sparsities:
        """The least that each layer loses: what was pruned before the search."""
        return super().floors if self._floors is None else self._floors

    @property
    def settings(self) -> dict[str, Any]:
        """What the plans depend on."""
        return asdict(self.annealing)

    @property
    def length(self) -> int:
        """The number of trials: two at first, and `tries` for each temperature."""
        return self.annealing.length

    def plans(self) -> Plans:
        """Yield distributions, each close to the last accepted one."""
        best = yield from self.annealing.walk(
            self.uniform(),
            [names for names, _ in self.budgets],
            self.sizes,
            lambda shares: self.budget.fitted(shares, self.floors),
            random.Random(self.seed),
            self.keep,
        )
        if best is not None and self.finetune is not None:
            score, number, plan = best
            self.adopt(1, number, plan, score)
