"""What can be wrong with a recipe."""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike

from prune_core.errors import ConfigError

__all__ = ["Mistake", "RecipeError"]

_SHOWN = 8


@dataclass(frozen=True, slots=True)
class Mistake:
    """One thing that is wrong in a recipe.

    Attributes:
        line: Where, counted from 1; 0 for the file as a whole.
        said: A sentence that names the value, the rule, and what would be right.
    """

    line: int
    said: str

    @property
    def where(self) -> str:
        """What a message says after the name of the file."""
        return f", line {self.line}" if self.line else ""


class RecipeError(ConfigError):
    """A recipe cannot be read, or says something that cannot be done.

    Args:
        path: The file.
        mistakes: What is wrong in it, at least one thing.

    Attributes:
        mistakes: The same.
    """

    def __init__(self, path: str | PathLike[str], mistakes: list[Mistake]) -> None:
        self.mistakes = sorted(mistakes, key=lambda mistake: mistake.line)
        lines = [f"{path}{each.where}: {each.said}" for each in self.mistakes[:_SHOWN]]
        if (more := len(self.mistakes) - _SHOWN) > 0:
            lines.append(f"… and {more} more.")
        super().__init__("\n".join(lines))
