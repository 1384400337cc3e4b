"""Labels: every channel has one, and channels that can only go together share theirs."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["Labels"]

Array = np.ndarray[Any, Any]


class Labels:
    """Sets of channels, joined as the model is read (union-find)."""

    def __init__(self) -> None:
        self._parent: list[int] = []
        self._fixed: dict[int, str] = {}

    def new(self, count: int) -> Array:
        """Return labels that nothing shares yet."""
        first = len(self._parent)
        self._parent.extend(range(first, first + count))
        return np.arange(first, first + count)

    def find(self, label: int) -> int:
        """Return the one label that stands for all that are tied to this one."""
        root = label
        while self._parent[root] != root:
            root = self._parent[root]
        while self._parent[label] != root:
            self._parent[label], label = root, self._parent[label]
        return root

    def roots(self, labels: Array) -> Array:
        """Return what stands for each of several labels."""
        return np.array([self.find(int(label)) for label in labels], int)

    def tie(self, first: Array, second: Array) -> None:
        """Say that two channels can only go together, place by place."""
        for a, b in zip(first, second, strict=True):
            self._parent[self.find(int(a))] = self.find(int(b))

    def fix(self, labels: Array, why: str) -> None:
        """Say that channels must stay, and why; what is said first counts."""
        for label in labels:
            self._fixed.setdefault(int(label), why)

    def fixed(self) -> dict[int, str]:
        """Return the labels that stay, each with the reason."""
        reasons: dict[int, str] = {}
        for label, why in self._fixed.items():
            reasons.setdefault(self.find(label), why)
        return reasons

    def __len__(self) -> int:
        return len(self._parent)
