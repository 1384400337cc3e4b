"""What is kept of the rows that went into a layer: how many, their sums, their products."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self, TypeVar

import torch
from torch import Tensor

__all__ = ["Statistics"]

_T = TypeVar("_T")


@dataclass
class Statistics:
    """Sums over all rows x that a layer has seen, in float64 where the device has it.

    Attributes:
        rows: How many rows there were.
        sums: `Σ x`, one row for each group of the layer: `(groups, features)`.
        squares: `Σ x²`, of the same shape.
        products: `Σ x xᵀ`, `(groups, features, features)`, if it was asked for: the Gram matrix.
    """

    rows: int
    sums: Tensor
    squares: Tensor
    products: Tensor | None = None
    _made: dict[Hashable, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    PARTS: ClassVar[tuple[str, ...]] = ("rows", "sums", "squares", "products")

    def parts(self) -> dict[str, Tensor]:
        """Return everything as tensors, by name, to be added up or written down."""
        rows = torch.tensor(self.rows, device=self.sums.device)
        parts = {"rows": rows, "sums": self.sums, "squares": self.squares}
        return parts if self.products is None else {**parts, "products": self.products}

    @classmethod
    def of_parts(cls, parts: Mapping[str, Tensor | None]) -> Self:
        """Undo `parts`.

        Args:
            parts: What `parts` returned.
        """
        rows, sums, squares = (parts[name] for name in cls.PARTS[:3])
        assert rows is not None
        assert sums is not None
        assert squares is not None
        return cls(int(rows), sums, squares, parts["products"])

    def copy(self) -> Self:
        """Return the same in tensors of their own."""
        return self.of_parts(
            {"products": None} | {name: part.clone() for name, part in self.parts().items()}
        )

    def once(self, what: Hashable, make: Callable[[], _T]) -> _T:
        """Return what `make` computes of these sums, made by the first who asks for it.

        Queries, keys and values of an attention read one tensor, and their layers share one object
        of this class: a decomposition of its products is needed once for all three.

        Args:
            what: Tells one result from others.
            make: Computes it.
        """
        if what not in self._made:
            self._made[what] = make()
        made: _T = self._made[what]
        return made

    def add(self, other: Statistics) -> None:
        """Add what another batch gave, in place.

        Args:
            other: The statistics of the other batch.
        """
        self._made.clear()
        self.rows += other.rows
        self.sums += other.sums
        self.squares += other.squares
        if self.products is not None and other.products is not None:
            self.products += other.products

    @property
    def mean(self) -> Tensor:
        """The mean of each feature."""
        return self.sums / max(1, self.rows)

    @property
    def norm(self) -> Tensor:
        """The length of each feature over all rows, `‖X_j‖₂ = sqrt(Σ x_j²)`."""
        return self.squares.sqrt()

    @property
    def mean_square(self) -> Tensor:
        """The second moment of each feature."""
        return self.squares / max(1, self.rows)

    @property
    def variance(self) -> Tensor:
        """The sample variance of each feature."""
        spread = self.squares - self.sums.square() / max(1, self.rows)
        return spread.clamp_min(0) / max(1, self.rows - 1)

    @property
    def gram(self) -> Tensor:
        """The mean of `x xᵀ`."""
        assert self.products is not None, "asked of statistics that were gathered without products"
        return self.products / max(1, self.rows)

    def take_gram(self) -> Tensor:
        """Return `gram` in the memory of the products, which are gone afterwards."""
        assert self.products is not None, "asked of statistics that were gathered without products"
        products, self.products = self.products, None
        return products.div_(max(1, self.rows))

    @property
    def covariance(self) -> Tensor:
        """The mean of `(x − mean)(x − mean)ᵀ`."""
        mean = self.mean
        return self.gram - mean.unsqueeze(-1) * mean.unsqueeze(-2)

    def finite(self) -> bool:
        """Whether there is neither NaN nor infinity in them."""
        return bool(torch.isfinite(self.sums).all() & torch.isfinite(self.squares).all())
