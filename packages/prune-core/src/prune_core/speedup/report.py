"""What speedup did: in numbers, in names, and as a table."""

import json
from dataclasses import asdict, dataclass, field
from os import PathLike
from typing import Any

import torch
from torch import nn

from prune_core.speedup.surgery import save_pruned
from prune_core.speedup.verify import Difference

__all__ = ["Change", "SpeedupReport"]


@dataclass(frozen=True, slots=True)
class Change:
    """A tensor that became smaller."""

    name: str
    before: tuple[int, ...]
    after: tuple[int, ...]


@dataclass(slots=True)
class SpeedupReport:
    """What `shrink` did to a model.

    Attributes:
        model: The model itself, smaller.
        changes: Every tensor that became smaller.
        removed: How many units went.
        kept: Masked units that could not go, and why: {tensor and axis: reason}.
        masks: The masks still in force, `{module: {tensor: mask}}`, in the new shapes.
        attributes: (module, attribute, old, new) of every size that was written down.
        corrections: (module, function, occurrence) of the calls whose sizes are corrected.
        returned: Sizes that could not be repaired and whose units were therefore left alone.
        unknown: Operators without a rule.
        moved: How far the output is from that of the masks as they were given, where
            `constants="zero"` masked more than those; relative to its largest number.
        live_norms: How many norms now run over fewer indices.
        parameters: Number of parameters before and after.
        flops: Floating-point operations of one forward of the example, before and after.
        difference: The largest relative difference between masked and small model.
        seconds: How long each stage took.
    """

    model: nn.Module = field(repr=False)
    changes: list[Change] = field(default_factory=list)
    removed: int = 0
    kept: dict[str, str] = field(default_factory=dict)
    masks: dict[str, dict[str, torch.Tensor]] = field(default_factory=dict, repr=False)
    attributes: list[tuple[str, str, Any, Any]] = field(default_factory=list)
    corrections: list[tuple[str, str, int]] = field(default_factory=list)
    returned: list[str] = field(default_factory=list)
    unknown: dict[str, str] = field(default_factory=dict)
    moved: float = 0.0
    live_norms: int = 0
    parameters: tuple[int, int] = (0, 0)
    flops: tuple[int, int] = (0, 0)
    difference: Difference | None = None
    seconds: dict[str, float] = field(default_factory=dict)

    def table(self) -> str:
        """Every tensor that became smaller, one a line."""
        width = max([len(change.name) for change in self.changes], default=6)
        lines = [f"{'tensor':{width}}  before → after"]
        lines += [
            f"{change.name:{width}}  {_shape(change.before)} → {_shape(change.after)}"
            for change in self.changes
        ]
        for name, (before, after) in (("parameters", self.parameters), ("flops", self.flops)):
            share = f" ({after / before:.1%})" if before else ""
            lines.append(f"{name:{width}}  {before:,} → {after:,}{share}")
        if self.moved:
            said = f"zeroed, which moved the output by {self.moved:.2e}"
            lines.append(f"{'constants':{width}}  {said}")
        lines += [f"{name:{width}}  kept: {why}" for name, why in self.kept.items()]
        if self.difference is not None:
            lines.append(f"{'difference':{width}}  {self.difference.relative:.2e} (relative)")
        return "\n".join(lines)

    def save(self, path: str | PathLike[str]) -> None:
        """Write the small model, as it is now, to a file that `load_pruned` reads."""
        save_pruned(self.model, path)

    def to_json(self) -> str:
        """Everything but the tensors, as JSON."""
        plain = {
            name: getattr(self, name)
            for name in self.__slots__
            if name not in ("model", "masks", "difference", "changes")
        }
        plain["changes"] = [asdict(change) for change in self.changes]
        plain["difference"] = None if self.difference is None else asdict(self.difference)
        return json.dumps(plain, indent=2)

    def __str__(self) -> str:
        return self.table()


def _shape(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape)) or "scalar"
