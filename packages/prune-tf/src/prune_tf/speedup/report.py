"""What a speedup did: in numbers, in names, and as a table."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import keras

from prune_core.notebook import as_html

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
        changes: Every weight that became smaller.
        difference: The largest difference between the outputs of both models, relative to the
            largest output, or None when that was not measured.
        held: How many masked channels stay because their constant reaches the borders of a
            padded convolution; `constants="zero"` lets them go.
        unknown: `{layer name: class}` of what has no rule; channels around it stay.
        moved: By how much `constants="zero"` changed the masked model's output, relative to its
            largest number.
    """

    model: keras.Model = field(repr=False)
    parameters: tuple[int, int]
    changes: tuple[Change, ...] = ()
    difference: float | None = None
    held: int = 0
    unknown: dict[str, str] = field(default_factory=dict)
    moved: float = 0.0

    def table(self) -> str:
        """Every weight that became smaller, one a line."""
        width = max([len(change.name) for change in self.changes], default=10)
        lines = [f"{'weight':{width}}  before → after"]
        lines += [f"{c.name:{width}}  {_shape(c.before)} → {_shape(c.after)}" for c in self.changes]
        before, after = self.parameters
        lines.append(f"{'parameters':{width}}  {before:,} → {after:,} ({after / before:.1%})")
        if self.difference is not None:
            lines.append(f"{'difference':{width}}  {self.difference:.1e} (relative)")
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

    def __str__(self) -> str:
        return self.table()

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return as_html(self)


def _shape(shape: tuple[Any, ...]) -> str:
    return "×".join(map(str, shape)) or "scalar"
