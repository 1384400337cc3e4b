"""What every trained model of this benchmark brings along."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Protocol

from torch import Tensor, nn

__all__ = ["Task"]


class Task(Protocol):
    """A trained model, the data to judge it by, and the loss to tune it with.

    Attributes:
        name: For the table.
        metric: What `quality` measures.
        exclude: Modules that stay as they are, such as the layer that makes the answer.
    """

    name: ClassVar[str]
    metric: ClassVar[str]
    exclude: ClassVar[tuple[str, ...]]

    def model(self) -> nn.Module:
        """Return the trained model, in eval mode."""

    def example(self) -> Any:
        """Return inputs as the model takes them."""

    def batches(self, seed: int) -> Iterator[Any]:
        """Yield endless batches to calibrate or train with; never those that `quality` uses."""

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        """Return the loss of a batch."""

    def quality(self, model: nn.Module) -> float:
        """Return how good a model is on data that nothing else sees."""
