"""The allocator that takes less from modules with many outliers among their scores."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from prune_core.errors import ConfigError
from prune_core.masking import Masks
from prune_toolkit.allocate.base import SparsityAllocator, check_scores
from prune_toolkit.allocate.over_layers import block_of
from prune_toolkit.allocate.per_layer import NormalSparsityAllocator
from prune_toolkit.allocate.rows import RowSparsityAllocator

if TYPE_CHECKING:
    from prune_core.pruning.pruner import Pruner

__all__ = ["OutlierSparsityAllocator"]

WITHIN = {"row": RowSparsityAllocator, "normal": NormalSparsityAllocator}


class OutlierSparsityAllocator(SparsityAllocator):
    """Spreads a sparsity over the blocks of a model by their outliers (OWL).

    The outliers of a block are its scores that are more than `outlier` times as large as their
    mean. The larger their share d, the less the block loses:

        sparsity of a block = s − (d' − mean of d')      d' = 2 · spread · (d − min) / (max − min)

    The means are weighted by the number of weights, so that all blocks together lose s.

    Yin et al., Outlier Weighed Layerwise Sparsity (OWL), https://arxiv.org/abs/2310.05175

    Args:
        pruner: The pruner.
        outlier: How many times the mean a score has to be.
        spread: By how much the sparsity of a block may differ from what is asked for.
        within: Which scores are compared within a module, once it is settled what it loses:
            `"row"` or `"normal"`.
        continuous_mask: Whether what is masked stays masked.
        transform: Applied to the scores before they are compared.
    """

    def __init__(
        self,
        pruner: Pruner,
        outlier: float = 5.0,
        spread: float = 0.08,
        within: str = "row",
        continuous_mask: bool = True,
        transform: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        if within not in WITHIN:
            raise ConfigError(f"within is {within!r}; it must be 'row' or 'normal'.")
        for name, value in (("outlier", outlier), ("spread", spread)):
            if not value > 0:
                raise ConfigError(f"{name} is {value!r}; it must be a number greater than 0.")
        self.outlier, self.spread = outlier, spread
        with pruner.plain() as model:
            self._modules = dict(model.named_modules(remove_duplicate=False))
        self._within = WITHIN[within](pruner, continuous_mask=continuous_mask, transform=transform)
        super().__init__(pruner, continuous_mask=continuous_mask, transform=transform)

    def for_each_module(self) -> SparsityAllocator:
        """Return what allocates within single modules."""
        return self._within

    def generate_sparsity(self, metrics: Mapping[str, Tensor]) -> Masks:
        """Return the masks, with more left where there are more outliers."""
        wrappers = self.pruner.get_modules_wrapper()
        asked = {name: wrapper.config["sparsity"] for name, wrapper in wrappers.items()}
        try:
            for name, sparsity in self.sparsities(metrics).items():
                wrappers[name].config["sparsity"] = sparsity
            return self._within.generate_sparsity(metrics)
        finally:
            for name, sparsity in asked.items():
                wrappers[name].config["sparsity"] = sparsity

    def sparsities(self, metrics: Mapping[str, Tensor]) -> dict[str, float]:
        """Return what each module loses.

        Args:
            metrics: The scores of each module.
        """
        blocks: dict[tuple[int, str], list[str]] = defaultdict(list)
        for name, wrapper in self.pruner.get_modules_wrapper().items():
            check_scores(name, metrics[name])
            blocks[wrapper.config["entry"], block_of(name, self._modules)].append(name)
        found: dict[str, float] = {}
        for entry in {entry for entry, _ in blocks}:
            mine = [names for (its_entry, _), names in blocks.items() if its_entry == entry]
            for names, sparsity in zip(mine, self._spread_over(mine, metrics), strict=True):
                found |= dict.fromkeys(names, sparsity)
        return found

    def _spread_over(self, blocks: list[list[str]], metrics: Mapping[str, Tensor]) -> list[float]:
        asked = self.pruner._wrappers[blocks[0][0]].config["sparsity"]
        sizes = torch.tensor([float(sum(metrics[name].numel() for name in b)) for b in blocks])
        shares = torch.tensor([self._outliers([metrics[n] for n in names]) for names in blocks])
        low, high = shares.min(), shares.max()
        if len(blocks) == 1 or high == low:
            return [asked] * len(blocks)
        shift = 2 * self.spread * (shares - low) / (high - low)
        shift -= (shift * sizes).sum() / sizes.sum()
        sparsities = asked - shift
        if sparsities.min() < 0 or sparsities.max() >= 1:
            raise ConfigError(
                f"A sparsity of {asked} and a spread of {self.spread} would take "
                f"{float(sparsities.max()):.2f} of one block and {float(sparsities.min()):.2f} of "
                "another. Choose a smaller spread."
            )
        spread: list[float] = sparsities.tolist()
        return spread

    def _outliers(self, scores: list[Tensor]) -> float:
        """Return the share of scores that are far above their mean."""
        wide = [s.float() if self.transform is None else self.transform(s).float() for s in scores]
        count = sum(s.numel() for s in wide)
        bound = self.outlier * sum(float(s.sum(dtype=torch.float64)) for s in wide) / count
        return sum(int((s > bound).sum()) for s in wide) / count
