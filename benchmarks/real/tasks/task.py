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
        higher_is_better: Whether a high quality is a good one.
        exclude: Modules that stay as they are, such as the layer that makes the answer.
        fixed_for_others: More of them for tools that cannot follow what the forward does there.
        of_all_flops: Whether the model is pruned to a share of its FLOPs, wherever they are.
        feed_forward: The layers that make the hidden units of feed-forward networks, if any.
        linear: The layers of which single weights are pruned, if any.
        calibration: How many batches a method may look at.
        learning_rate: The largest of the training afterwards.
        compare: How far the answers of two models are apart, as `Distiller` takes it.
    """

    name: ClassVar[str]
    metric: ClassVar[str]
    higher_is_better: ClassVar[bool]
    exclude: ClassVar[tuple[str, ...]]
    fixed_for_others: ClassVar[tuple[str, ...]]
    of_all_flops: ClassVar[bool]
    feed_forward: ClassVar[tuple[str, ...]]
    linear: ClassVar[tuple[str, ...]]
    calibration: ClassVar[int]
    learning_rate: ClassVar[float]
    compare: Any

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
