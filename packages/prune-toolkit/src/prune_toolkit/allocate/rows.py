"""The allocator that lets the weights of each output compete with each other alone."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from prune_core.amount import number_to_prune
from prune_core.errors import ConfigError
from prune_core.masking import Masks
from prune_toolkit.allocate.base import SparsityAllocator, check_scores
from prune_toolkit.allocate.per_layer import keep_in_rows
from prune_toolkit.calibration.layers import is_layer, matrix_of, weight_of

__all__ = ["RowSparsityAllocator"]


class RowSparsityAllocator(SparsityAllocator):
    """Prunes the smallest scores of each row of a weight, so that all outputs lose equally.

    A row is what one output is computed with: the weights of a neuron, or the kernel of a
    filter. Where a row cannot lose the ratio exactly, the rows whose next score is smallest lose
    one more, so that the module does.
    """

    def check_settings(self) -> None:
        """Refuse modules without rows, and scores of whole channels."""
        super().check_settings()
        if self.channels or self.dim is not None:
            raise ConfigError(
                "Rows of single weights are compared here, and this algorithm scores whole "
                "channels. Choose another mode."
            )
        for name, wrapper in self.pruner.get_modules_wrapper().items():
            if not is_layer(wrapper.module):
                raise ConfigError(
                    f"{name!r} is a {type(wrapper.module).__name__}, of whose weight it is not "
                    "known which part makes one output. Choose mode='normal', or exclude it."
                )

    def generate_sparsity(self, metrics: Mapping[str, Tensor]) -> Masks:
        """Return the masks, module by module."""
        masks = {}
        for name, wrapper in self.pruner.get_modules_wrapper().items():
            scores = metrics[name] if self.transform is None else self.transform(metrics[name])
            check_scores(name, scores)
            alive = self._alive(name)
            if alive is not None:
                scores = scores.masked_fill(~alive, -torch.inf)
            matrix = matrix_of(wrapper.module, scores)
            rows = matrix.flatten(0, 1)
            total = number_to_prune(wrapper.config["sparsity"], rows.numel())
            kept = _keep(rows, total)
            mask = weight_of(wrapper.module, kept.view(matrix.shape)).contiguous()
            masks[name] = self._expand_mask(name, mask if alive is None else mask & alive)
        return masks


def _keep(rows: Tensor, total: int) -> Tensor:
    """Return a mask without `total` scores, of each row as many as of any other, or one more.

    >>> _keep(torch.tensor([[1.0, 2.0, 9.0], [3.0, 4.0, 5.0]]), 3)
    tensor([[False, False,  True],
            [False,  True,  True]])
    """
    each, more = divmod(total, len(rows))
    kept = keep_in_rows(rows, each)
    if more:
        following = rows.masked_fill(~kept, torch.inf).min(1)
        chosen = following.values.argsort(stable=True)[:more]
        kept[chosen, following.indices[chosen]] = False
    return kept
