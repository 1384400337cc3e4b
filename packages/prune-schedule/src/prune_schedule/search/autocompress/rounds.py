"""A round of AutoCompress: search, train towards what was found, make small, evaluate."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor

from prune_core import unwrap
from prune_core.masking import Masks, PrunerModuleWrapper
from prune_schedule.budget.removed_weights import RemovedWeights
from prune_schedule.run.delegating import DelegatingPruner, one_shot_class
from prune_schedule.run.evaluation import Evaluate, Finetune, score_of
from prune_schedule.run.isolation import tidied
from prune_schedule.search.annealing import SimulatedAnnealingPruner
from prune_schedule.store.trials import Trials
from prune_schedule.timed.admm import ADMMPruner
from prune_schedule.timed.optimizer_steps import optimizers_in
from prune_speedup.pruning.dependency_aware import DependencyAwareAllocator
from prune_speedup.search.rounds import PruningInRounds
from prune_speedup.torch.speedup import make_small
from prune_speedup.torch.tensors import Snapshot

__all__ = ["AutoCompressRounds"]


class AutoCompressRounds(PruningInRounds, DelegatingPruner):
    """Does what a round consists of; `AutoCompressPruner` goes through the rounds.

    Attributes:
        rounds: How many rounds there are.
        searches: For each round, what its search has tried.
    """

    searches: list[Trials]
    rho: float
    finetuner: Finetune | None
    evaluator: Evaluate
    dummy_input: Any
    pruning_algorithm: Any
    pruning_params: Mapping[str, Any]
    _base: Masks
    _large: Snapshot | None
    _search: dict[str, Any]
    _admm: dict[str, Any]

    def _round(self, number: int) -> dict[str, Any]:
        sparsities = self._allocate(number)
        self._train(number, sparsities)
        if self.speedup:
            self._make_small()
        if self.finetuner is not None:
            with tidied(self.bound_model):
                self.finetuner(self.bound_model)
        with tidied(self.bound_model):
            score = score_of(self.evaluator, self.bound_model)
        score.warn()
        reached = self.sparsities
        sparsity = sum(reached[n] * self._sizes[n] for n in reached) / sum(self._sizes.values())
        more = {"left": dict(self._left)} if self.target is not None else {}
        return {
            "trial": number - 1,
            "sparsity": sparsity,
            **more,
            "score": score.value,
            "problem": score.problem,
            "sparsities": reached,
        }

    def _allocate(self, number: int) -> dict[str, float]:
        """Search for how much each layer is to lose by the end of the round."""
        rules, target = self._rules_of(number), self._target_of(number)
        if not target and not any(entry.get("sparsity") for entry in rules):
            self.searches.append(Trials())
            return dict.fromkeys(self._sizes, 0.0)  # what is left is little enough already
        self._let_go()
        search = SimulatedAnnealingPruner(
            self.bound_model,
            rules,
            self.evaluator,
            pruning_algorithm=self.pruning_algorithm,
            pruning_params=self.pruning_params,
            target=target,
            dummy_input=self.dummy_input,
            experiment_data_dir=self._part(number),
            seed=self._seed_of(number),
            **self._search,
        )
        self.one_shot, search._base = search.one_shot, self._base
        allocator = getattr(search.one_shot, "sparsity_allocator", None)
        if self.speedup and target is None and isinstance(allocator, DependencyAwareAllocator):
            # What is masked goes, and with it the inputs of other layers: that counts as well.
            search._budget = RemovedWeights(
                search.one_shot, search.budgets, self.dummy_input, search.caps
            )
        if not search.run().complete:
            raise KeyboardInterrupt  # which the search has taken for itself
        assert search.best is not None
        self.searches.append(search.trials)
        if target is not None:
            left = search.budget.left(search.best)
            before = self._left if self.speedup else dict.fromkeys(left, 1.0)
            self._left = self._left | {kind: before[kind] * left[kind] for kind in left}
        return search.best

    def _train(self, number: int, sparsities: Mapping[str, float]) -> None:
        """Train weights towards these sparsities, and prune them."""
        self._let_go()
        rules = [
            {"op_names": [name], "sparsity": sparsity, "rho": self.rho}
            for name, sparsity in sparsities.items()
        ]
        folder = self._part(number)
        admm = ADMMPruner(
            self.bound_model,
            rules,
            pruning_algorithm=self.pruning_algorithm,
            pruning_params=self.pruning_params,
            checkpoint=None if folder is None else folder / "admm.pt",
            **self._admm,
        )
        self.one_shot, admm._base = admm.one_shot, self._base
        self.one_shot.load_masks(self._base)
        admm.compress()
        if len(admm.trials) < admm.iterations:
            raise KeyboardInterrupt
        self._base = {name: dict(tensors) for name, tensors in self.one_shot.masks.items()}

    def _make_small(self) -> None:
        """Remove what is masked; what cannot be removed stays masked."""
        masks = self.close_masks(self.dummy_input)
        self.unwrap()
        self._large = Snapshot(self.bound_model)
        report = make_small(self.bound_model, self.dummy_input, masks)
        trainer = self._admm.get("evaluator")
        known = self._admm.get("traced_optimizer"), getattr(trainer, "optimizers", None)
        for optimizer in optimizers_in(known):
            optimizer.state.clear()  # its averages have the shapes that were
        self._wrap_again(report.masks)

    def _make_large(self) -> None:
        """Put back what was removed in a round that did not come to its end."""
        self._let_go()
        if self._large is not None:
            self._large.restore()
            self._large = None

    def _wrap_again(self, masks: Masks) -> None:
        """Wrap a model whose layers have other sizes than when it was wrapped before."""
        algorithm = one_shot_class(self.pruning_algorithm)
        self._make_one_shot(algorithm, self.pruning_params, self.bound_model, list(self._rules))
        self._base = masks
        self.one_shot.load_masks(masks)

    def _let_go(self) -> None:
        """Take the wrappers off without a trace of their masks."""
        wrappers = [m for m in self.bound_model.modules() if isinstance(m, PrunerModuleWrapper)]
        for wrapper in wrappers:
            for name in wrapper.masked_names:
                wrapper._buffers[f"{name}_mask"] = None
        self.unwrap()
        unwrap(self.bound_model)  # also of a pruner that was interrupted while it was made

    def _sizes_now(self, names: Collection[str]) -> int:
        return sum(self._weights_of(name).numel() for name in names)

    def _weights_of(self, name: str) -> Tensor:
        wrapper = self.get_modules_wrapper()[name]
        return wrapper.module.get_parameter(wrapper.target)
