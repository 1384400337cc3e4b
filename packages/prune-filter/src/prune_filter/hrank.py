"""Output channels by the rank of their feature maps."""

from __future__ import annotations

import torch
from torch import Tensor

from prune_filter.activation import ActivationPruner

__all__ = ["HRankPruner"]


class HRankPruner(ActivationPruner):
    """Prunes the output channels whose feature maps have the lowest rank as matrices.

    `score[i] = mean(rank(act(out[i])))`, over all inputs. Arguments are those of
    `ActivationMeanRankPruner`.

    Lin et al., HRank: Filter Pruning using High-Rank Feature Map,
    https://arxiv.org/abs/2002.10179

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from prune_filter import HRankPruner
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
        >>> pruner = HRankPruner(
        ...     model,
        ...     [{"sparsity": 0.5, "op_types": ["Conv2d"]}],
        ...     calibrate=lambda model: model(torch.randn(16, 3, 8, 8)),
        ... )
        >>> model, masks = pruner.compress()
        >>> int(masks["0"]["bias"].sum())
        4
    """

    default_types = ("Conv2d", "ConvTranspose2d")
    supported_types = default_types

    def statistic(self, outputs: Tensor) -> Tensor:
        """Return for each value the rank of the map that it lies in.

        Args:
            outputs: What a module returned.
        """
        maps = self.activation(outputs).float()
        ranks: Tensor = torch.linalg.matrix_rank(maps)
        return ranks[..., None, None].expand_as(maps)
