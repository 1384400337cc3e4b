"""Several consecutive blocks by the angle between what enters and what leaves them."""

from __future__ import annotations

from collections.abc import Iterator

from prune_blocks.layers.pruner import BlockPruner
from prune_blocks.layers.similarity import Cosines
from prune_core.errors import ConfigError
from prune_core.masking import bare
from prune_speedup.torch import Block

__all__ = ["AngularDistancePruner"]


class AngularDistancePruner(BlockPruner):
    """Takes out the run of consecutive blocks that turns the hidden states least.

    `score(b, n) = mean(arccos(cos(x, y))) / π`, where x enters block b and y leaves the block
    n − 1 later. Of a sequence the last token alone counts, as in the paper.

    Gromov et al., The Unreasonable Ineffectiveness of the Deeper Layers,
    https://arxiv.org/abs/2403.17887

    Args:
        model: The model; it gets fewer layers in place.
        example_inputs: An input of the model.
        **options: `count=`, `sparsity=` or `target=`, `data=` or `calibrate=`, and what else
            `BlockPruner` takes. A budget is met by the shortest run that can meet it.
    """

    _cosines: Cosines | None = None

    def choose(self) -> list[Block]:
        """Return the run of blocks with the smallest angle."""
        every = self._rows()
        rows = [row for row in every if len(row) >= (self.amount.count or 1)]
        if not rows:
            longest = max(map(len, every))
            raise ConfigError(
                f"{self.amount.count} consecutive blocks are to go, and the longest row of blocks "
                f"that can be taken out has {longest}. Ask for fewer, or use 'block_influence', "
                "which takes them from anywhere."
            )
        if self._cosines is None:
            with bare(self.model) as model, Cosines(model, self.found, every, last=True) as cosines:
                self.run_calibration(model)
            self._cosines = cosines
        angle = self._cosines.angle
        self.scores = {b.name: angle(b, b) for row in rows for b in row}
        for length in range(1, len(self.candidates) + 1):
            runs = [
                run
                for run in _runs(rows, length)
                if self.amount.met_by(run) and self.leaves_one(run)
            ]
            if runs:
                return min(runs, key=lambda run: angle(run[0], run[-1]))
        longest_row = max(rows, key=len)
        most = longest_row if self.leaves_one(longest_row) else longest_row[1:]
        raise self.amount.refuse(most, len(self.candidates))

    def _rows(self) -> list[list[Block]]:
        """The candidates that stand next to each other in one list of modules."""
        rows: dict[str, list[Block]] = {}
        for block in self.candidates:
            parent, _, leaf = block.name.rpartition(".")
            if block.kind != "block" or not leaf:
                raise ConfigError(
                    f"{block.name!r} is a residual branch ({block.kind}), and angular_distance "
                    "ranks whole blocks in a row. 'leave_one_out' ranks both."
                )
            rows.setdefault(parent, []).append(block)
        names = {parent: [*self.model.get_submodule(parent)._modules] for parent in rows}
        split: list[list[Block]] = []
        for parent, row in rows.items():
            places = {b.name: names[parent].index(b.name.rpartition(".")[2]) for b in row}
            for block in row:
                follows = split and split[-1] and split[-1][-1].name in places
                if follows and places[block.name] == places[split[-1][-1].name] + 1:
                    split[-1].append(block)
                else:
                    split.append([block])
        return split


def _runs(rows: list[list[Block]], length: int) -> Iterator[list[Block]]:
    for row in rows:
        for start in range(len(row) - length + 1):
            yield row[start : start + length]
