"""Which distribution brings which name, for the sentence "`pip install prune-filter` brings it".

What is read here is written by `scripts/plugin_directory.py` from what the distributions register.
Look-ups that succeed never read it.
"""

from __future__ import annotations

import json
from functools import cache

__all__ = ["directory", "distributions_of"]


@cache
def directory() -> dict[str, dict[str, list[str]]]:
    """Return `{distribution: {kind: names}}` of the distributions that are known."""
    from pathlib import Path  # slow to import, and only names that nobody has need it

    file = Path(__file__).with_name("directory.json")
    known: dict[str, dict[str, list[str]]] = json.loads(file.read_text("utf-8"))
    return known


def distributions_of(kind: str | None, name: str) -> list[str]:
    """Return the known distributions that bring a name: of one kind, or of any but commands."""
    return [
        distribution
        for distribution, kinds in directory().items()
        if any(
            name in names
            for its_kind, names in kinds.items()
            if its_kind == kind or (kind is None and its_kind != "command")
        )
    ]
