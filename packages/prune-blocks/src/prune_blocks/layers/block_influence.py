"""Blocks by how little they change what passes through them."""

from __future__ import annotations

from prune_blocks.layers.pruner import BlockPruner
from prune_blocks.layers.similarity import Cosines
from prune_core.errors import ConfigError
from prune_core.masking import bare
from prune_speedup.torch import Block

__all__ = ["BlockInfluencePruner"]


class BlockInfluencePruner(BlockPruner):
    """Takes out the blocks whose output is most like their input.

    `score(b) = 1 − mean(cos(x, b(x)))`, over all tokens or places x of the calibration data.
    Padding that an `attention_mask` tells of does not count.

    Men et al., ShortGPT: Layers in Large Language Models are More Redundant Than You Expect,
    https://arxiv.org/abs/2403.03853

    Args:
        model: The model; it gets fewer layers in place.
        example_inputs: An input of the model.
        **options: `count=`, `sparsity=` or `target=`, `data=` or `calibrate=`, and what else
            `BlockPruner` takes. Of residual branches it says nothing: their input is not what they
            are added to.
    """

    def choose(self) -> list[Block]:
        """Return the blocks with the smallest influence."""
        branch = next((each for each in self.candidates if each.kind != "block"), None)
        if branch is not None:
            raise ConfigError(
                f"{branch.name!r} is a residual branch ({branch.kind}), and block_influence ranks "
                "whole blocks. 'leave_one_out' ranks both."
            )
        if not self.scores:
            rows = [[block] for block in self.candidates]
            with bare(self.model) as model, Cosines(model, self.found, rows, last=False) as cosines:
                self.run_calibration(model)
            self.scores = {b.name: 1 - cosines.cosine(b, b) for b in self.candidates}
        return self.lowest()
