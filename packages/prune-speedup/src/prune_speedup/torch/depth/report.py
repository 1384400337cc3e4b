"""What taking out blocks did: in numbers, in names, and as a table."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from math import nan
from os import PathLike
from typing import Any

from torch import nn

from prune_speedup.notebook import as_html
from prune_speedup.torch.depth.find import Block
from prune_speedup.torch.proof.compare import Difference
from prune_speedup.torch.surgery import save_pruned

__all__ = ["RemovalReport"]


@dataclass(slots=True)
class RemovalReport:
    """What `remove_blocks` did to a model.

    Attributes:
        model: The model itself, with fewer modules.
        removed: The blocks and branches that were taken out, by the names that they had.
        shortened: Of each list of modules that is shorter now, the entries that stayed.
        stand_ins: Modules that a module without parameters stands in for, and which kind.
        renamed: What blocks that stayed are called now, where that has changed.
        config: What changed in the config that the model carries, `{"num_hidden_layers": (4, 3)}`.
        missing: Why the config does not describe the model; empty if it does, or there is none.
        parameters: Number of parameters before and after.
        bytes: Memory that parameters and buffers take, before and after.
        flops: Floating-point operations of one forward of the example, before and after.
        comparison: Where the model and the whole one without these blocks differ most, and what is
            allowed there; None where they were not compared.
        verified: The inputs on which the two were compared.
        cache: How far a sequence continued from a cache is from the sequence as a whole; None for
            a model that keeps no cache.
        seconds: How long it took.
    """

    model: nn.Module = field(repr=False)
    removed: list[Block] = field(default_factory=list)
    shortened: dict[str, list[int]] = field(default_factory=dict)
    stand_ins: dict[str, str] = field(default_factory=dict)
    renamed: dict[str, str] = field(default_factory=dict)
    config: dict[str, tuple[Any, Any]] = field(default_factory=dict)
    missing: str = ""
    parameters: tuple[int, int] = (0, 0)
    bytes: tuple[int, int] = (0, 0)
    flops: tuple[int, int] = (0, 0)
    comparison: Difference | None = None
    verified: list[str] = field(default_factory=list)
    cache: float | None = None
    seconds: float = 0.0

    @property
    def difference(self) -> float:
        """The largest difference; relative to the largest number of the output, NaN if unknown."""
        return nan if self.comparison is None else self.comparison.relative

    def save(self, path: str | PathLike[str]) -> None:
        """Write the model, as it is now, to a file that `load_pruned` reads.

        Args:
            path: The file to write.
        """
        save_pruned(self.model, path)

    def to_json(self) -> str:
        """Everything but the model, as JSON."""
        plain = {n: getattr(self, n) for n in self.__slots__ if n not in ("model", "comparison")}
        plain["removed"] = [_plain(each) for each in self.removed]
        plain["comparison"] = None if self.comparison is None else asdict(self.comparison)
        return json.dumps(plain, indent=2)

    def table(self) -> str:
        """What was taken out, and what that is worth, one a line."""
        rows = [
            (each.kind, f"{each.name}: {each.parameters:,} parameters") for each in self.removed
        ]
        rows += [
            (label, f"{before:,} → {after:,} ({after / max(1, before):.1%})")
            for label, (before, after) in (
                ("parameters", self.parameters),
                ("FLOPs", self.flops),
                ("bytes", self.bytes),
            )
        ]
        rows += [("stand-in", f"{name}: {kind}") for name, kind in self.stand_ins.items()]
        rows += [("config", f"{k} {_brief(a)} → {_brief(b)}") for k, (a, b) in self.config.items()]
        if self.missing:
            rows.append(("config", f"does not describe the model: {self.missing}"))
        if self.comparison is not None:
            on = ", ".join(self.verified)
            rows.append(("difference", f"{self.difference:.1e} (relative), on {on}"))
        if self.cache is not None:
            rows.append(("with a cache", f"{self.cache:.1e} from the sequence as a whole"))
        width = max(len(label) for label, _ in rows)
        return "\n".join(f"{label:{width}}  {text}" for label, text in rows)

    def __str__(self) -> str:
        return self.table()

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return as_html(self)


def _plain(block: Block) -> dict[str, Any]:
    return {n: getattr(block, n) for n in ("name", "kind", "parameters", "flops", "modules")}


def _brief(value: Any) -> str:
    return f"{len(value)} entries" if isinstance(value, list) and len(value) > 4 else str(value)
