"""What a speedup did: in numbers, in names, and as a table."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from os import PathLike
from typing import Any

import keras

from prune_speedup.notebook import as_html
from prune_tf.speedup.saving import save_pruned

__all__ = ["Change", "SpeedupReport"]


@dataclass(frozen=True, slots=True)
class Change:
    """A weight that became smaller."""

    name: str
    before: tuple[int, ...]
    after: tuple[int, ...]


@dataclass(frozen=True)
class SpeedupReport:
    """What `shrink` made of a model.

    Attributes:
        model: The smaller model.
        parameters: Number of parameters before and after.
        flops: Floating-point operations for one sample before and after: those of products and
            convolutions, two per multiply-add.
        bytes: Memory that all weights take, before and after.
        removed: How many units went: sets of slices that can only go together.
        changes: Every weight that became smaller.
        difference: The largest difference between the outputs of both models, relative to the
            largest output, or None when that was not measured.
        held: How many masked channels stay because their constant reaches the borders of a
            padded convolution; `constants="zero"` lets them go.
        unknown: `{layer name: class}` of what has no rule; channels around it stay.
        moved: By how much `constants="zero"` changed the masked model's output, relative to its
            largest number.
        constant_outputs: Places of the outputs that were the same for every sample, so that the
            comparison says nothing of them.
    """

    model: keras.Model = field(repr=False)
    parameters: tuple[int, int]
    changes: tuple[Change, ...] = ()
    difference: float | None = None
    held: int = 0
    unknown: dict[str, str] = field(default_factory=dict)
    moved: float = 0.0
    flops: tuple[int, int] = (0, 0)
    bytes: tuple[int, int] = (0, 0)
    removed: int = 0
    constant_outputs: tuple[int, ...] = ()

    def table(self) -> str:
        """Every weight that became smaller, one a line."""
        width = max([len(change.name) for change in self.changes], default=10)
        lines = [f"{'weight':{width}}  before → after"]
        lines += [f"{c.name:{width}}  {_shape(c.before)} → {_shape(c.after)}" for c in self.changes]
        for name in ("parameters", "bytes", "flops"):
            lines.append(f"{name:{width}}  {_change(*getattr(self, name))}")
        if self.difference is not None:
            lines.append(f"{'difference':{width}}  {self.difference:.1e} (relative)")
        for place in self.constant_outputs:
            lines.append(f"{'constant':{width}}  output {place} is the same for every sample")
        if self.moved:
            lines.append(
                f"{'moved':{width}}  {self.moved:.1e} of the largest output, by the constants that "
                "were set to zero"
            )
        if self.held:
            lines.append(
                f"{'held':{width}}  {self.held} masked channels carry a constant to the borders "
                'of a padded convolution; constants="zero" lets them go'
            )
        return "\n".join(lines)

    def save(self, path: str | PathLike[str]) -> None:
        """Write the small model, as it is now, to a file that `load_pruned` reads.

        Args:
            path: The file to write; it ends in `.keras`.
        """
        save_pruned(self.model, path)

    def to_json(self) -> str:
        """Everything but the model, as JSON."""
        plain = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "model"}
        plain["changes"] = [asdict(change) for change in self.changes]
        return json.dumps(plain, indent=2)

    def __str__(self) -> str:
        return self.table()

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return as_html(self)


def _change(before: int, after: int) -> str:
    share = f" ({after / before:.1%})" if before else ""
    return f"{before:,} → {after:,}{share}"


def _shape(shape: tuple[Any, ...]) -> str:
    return "×".join(map(str, shape)) or "scalar"
