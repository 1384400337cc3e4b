"""What is masked, module by module, as a table; the same for every framework."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["Row", "Summary"]

HEADINGS = ("layer", "type", "shape", "asked", "reached", "parameters left")


@dataclass(frozen=True, slots=True)
class Row:
    """One masked module.

    Attributes:
        layer: Its name.
        type: Its class name.
        shape: Shape of the masked weight.
        asked: The sparsity that its settings ask for, or None where it is not one per module.
        reached: The ratio of its weight that is masked.
        left: How many values of weight and bias are not masked.
        total: How many there are.
    """

    layer: str
    type: str
    shape: tuple[int, ...]
    asked: float | None
    reached: float
    left: int
    total: int

    def cells(self) -> tuple[str, ...]:
        """The row as text."""
        return (
            self.layer,
            self.type,
            "×".join(map(str, self.shape)),
            "" if self.asked is None else f"{self.asked:.1%}",
            f"{self.reached:.1%}",
            f"{self.left:,} of {self.total:,}",
        )


@dataclass(frozen=True, slots=True)
class Summary:
    """All rows; `print()` shows them as plain text, rich as a table."""

    rows: tuple[Row, ...]

    @property
    def left(self) -> int:
        """How many values of the masked modules are not masked."""
        return sum(row.left for row in self.rows)

    @property
    def total(self) -> int:
        """How many values the masked modules have."""
        return sum(row.total for row in self.rows)

    def __str__(self) -> str:
        table = [HEADINGS, *(row.cells() for row in self.rows), self._footer()]
        widths = [max(len(cells[i]) for cells in table) for i in range(len(HEADINGS))]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()
            for cells in table
        ]
        return "\n".join(lines)

    def _footer(self) -> tuple[str, ...]:
        return ("all", "", "", "", "", f"{self.left:,} of {self.total:,}")

    def __rich__(self) -> Table:
        from rich.table import Table

        table = Table(*HEADINGS)
        for row in self.rows:
            table.add_row(*row.cells())
        table.add_section()
        table.add_row(*self._footer())
        return table

    def show(self) -> None:
        """Print: with rich where there is a terminal and rich, as plain text elsewhere."""
        if sys.stdout.isatty():
            try:
                from rich.console import Console
            except ImportError:
                pass
            else:
                Console().print(self)
                return
        print(self)
