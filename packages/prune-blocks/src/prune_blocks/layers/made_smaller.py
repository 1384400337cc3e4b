"""What a search over depth and width has tried, and what it did."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from os import PathLike
from typing import Any

from torch import nn

from prune_speedup.notebook import as_html
from prune_speedup.torch import Block, RemovalReport, SpeedupReport, save_pruned

__all__ = ["MadeSmaller", "Trial"]


@dataclass(frozen=True, slots=True)
class Trial:
    """One way of meeting the budget.

    Attributes:
        blocks: The names of the blocks that were gone; channels made up the rest.
        left: What was left of each kind that the budget names, as a share.
        loss: What it lost; NaN where it could not be tried.
        reason: Why it could not; empty if it could.
    """

    blocks: list[str]
    left: dict[str, float]
    loss: float
    reason: str = ""


@dataclass(slots=True)
class MadeSmaller:
    """What `depth_and_width` did to a model.

    Attributes:
        model: The model itself, with fewer and narrower layers.
        trials: What was tried, with fewer blocks gone first.
        left: What is left of each kind that the budget names, as a share of the whole model.
        depth: The report on the blocks that were taken out, or None if none was.
        width: The report on the channels, or None if none went.
    """

    model: nn.Module = field(repr=False)
    trials: list[Trial] = field(default_factory=list)
    left: dict[str, float] = field(default_factory=dict)
    depth: RemovalReport | None = None
    width: SpeedupReport | None = None

    @property
    def removed(self) -> list[Block]:
        """The blocks that were taken out, by the names that they had."""
        return [] if self.depth is None else self.depth.removed

    @property
    def parameters(self) -> tuple[int, int]:
        """Number of parameters before and after."""
        return self._over("parameters")

    @property
    def flops(self) -> tuple[int, int]:
        """Floating-point operations of one forward of the example, before and after."""
        return self._over("flops")

    @property
    def bytes(self) -> tuple[int, int]:
        """Memory that parameters and buffers take, before and after."""
        return self._over("bytes")

    def _over(self, name: str) -> tuple[int, int]:
        steps = [getattr(each, name) for each in (self.depth, self.width) if each is not None]
        return steps[0][0], steps[-1][1]

    def save(self, path: str | PathLike[str]) -> None:
        """Write the model, as it is now, to a file that `load_pruned` reads.

        Args:
            path: The file to write.
        """
        save_pruned(self.model, path)

    def to_json(self) -> str:
        """Everything but the model, as JSON."""
        steps: dict[str, Any] = {
            name: None if step is None else json.loads(step.to_json())
            for name, step in (("depth", self.depth), ("width", self.width))
        }
        trials = [asdict(trial) for trial in self.trials]
        return json.dumps({"left": self.left, "trials": trials, **steps}, indent=2)

    def table(self) -> str:
        """What was tried, and what was done, one a line."""
        rows = [("blocks gone", "loss", "left")]
        for trial in self.trials:
            left = ", ".join(f"{share:.1%} of {kind}" for kind, share in trial.left.items())
            loss = "-" if trial.reason else f"{trial.loss:.4g}"
            chosen = {*trial.blocks} == {each.name for each in self.removed} and not trial.reason
            taken = "  <- taken" if chosen else ""
            rows.append((str(len(trial.blocks)), loss, (trial.reason or left) + taken))
        widths = [max(len(row[at]) for row in rows) for at in range(2)]
        lines = [f"{a:>{widths[0]}}  {b:>{widths[1]}}  {c}" for a, b, c in rows]
        steps = [each for each in (self.depth, self.width) if each is not None]
        return "\n".join([*lines, *(f"\n{step}" for step in steps), f"\n{self._total()}"])

    def _total(self) -> str:
        """What both steps did to the whole model, on one line."""
        changes = [("parameters", self.parameters), ("FLOPs", self.flops), ("bytes", self.bytes)]
        said = (
            f"{kind} {before:,} → {after:,} ({after / max(1, before):.1%})"
            for kind, (before, after) in changes
        )
        return f"in total: {', '.join(said)}"

    def __str__(self) -> str:
        return self.table()

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return as_html(self)
