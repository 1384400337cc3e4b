"""NetAdapt: prune the least important layer, step by step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from os import PathLike
from typing import Any

from torch import nn

from prune_core.compat import understands
from prune_schedule.compat.positional import SEARCH
from prune_schedule.run.evaluation import Evaluate, Finetune
from prune_schedule.search.base import ConfigList
from prune_schedule.search.finetuned import FinetunedSearchPruner
from prune_schedule.search.plans import Plans
from prune_speedup.search.netadapt import NetAdapt

__all__ = ["NetAdaptPruner"]


class NetAdaptPruner(FinetunedSearchPruner):
    """Prunes step by step the layer whose loss costs least.

    In each round every layer is a candidate: it alone is pruned just far enough to reduce the cost
    of the model by `sparsity_per_iteration` of the dense cost, fine-tuned for a short time, and
    evaluated. The best candidate is kept, with its weights, and the next round starts from it,
    until the budget is met. Layers that can only lose channels together are one candidate.

    Yang et al., NetAdapt: Platform-Aware Neural Network Adaptation for Mobile Applications,
    https://arxiv.org/abs/1804.03230

    Args:
        model: The model, wrapped in place. Fine-tuning changes its weights.
        config_list: The rules. The sparsity of an entry is that of all its layers together, and
            no layer loses more than `max_sparsity_per_layer`, 0.99 unless given.
        finetune: Takes the model and trains it for a short time.
        evaluate: Takes the model and returns its score. One that trains as well, such as
            `prune_filter.TorchEvaluator`, is also `finetune` unless there is another.
        optimize_mode: `"maximize"` or `"minimize"`.
        pruning_algorithm: A registered pruner, or a class.
        sparsity_per_iteration: The saving of each round, as a ratio of the dense cost. If no layer
            can bring it, it is halved.
        experiment_data_dir: A folder for the study, from which the search can be resumed.
        **more: `stateful`, what is restored with the weights after each candidate, by name: the
            optimizer of `finetune`, if it is created outside of it. And `target`, `dummy_input`,
            `checkpoint`, `pruning_params`, `calibrate`, `log_dir`, `storage`, `study_name`,
            `trial_timeout` and `seed`, as for every search.
    """

    @understands(SEARCH)
    def __init__(
        self,
        model: nn.Module,
        config_list: ConfigList,
        finetune: Finetune | None = None,
        evaluate: Evaluate | None = None,
        optimize_mode: str = "maximize",
        pruning_algorithm: str | Callable[..., Any] = "l1",
        sparsity_per_iteration: float = 0.05,
        experiment_data_dir: str | PathLike[str] | None = None,
        **more: Any,
    ) -> None:
        self.netadapt = NetAdapt(sparsity_per_iteration)
        self.sparsity_per_iteration = sparsity_per_iteration
        super().__init__(
            model,
            config_list,
            evaluate,
            optimize_mode,
            finetune=finetune,
            pruning_algorithm=pruning_algorithm,
            experiment_data_dir=experiment_data_dir,
            **more,
        )

    @property
    def settings(self) -> dict[str, Any]:
        """What the plans depend on."""
        return asdict(self.netadapt)

    def plans(self) -> Plans:
        """Yield the dense model, then the candidates of each round."""
        return self.netadapt.walk(dict.fromkeys(self.sizes, 0.0), self.budget, self.adopt)
