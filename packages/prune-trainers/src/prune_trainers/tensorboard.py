"""What prune does, as curves in TensorBoard."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from prune_core.hookspecs import hookimpl
from prune_core.registry import registered

__all__ = ["TensorBoardListener", "to_tensorboard"]


class TensorBoardListener:
    """Writes sparsity whenever masks change, and what became of a model that was made smaller.

    Args:
        writer: A `torch.utils.tensorboard.SummaryWriter`, or anything with `add_scalar` and
            `add_text`.
    """

    def __init__(self, writer: Any) -> None:
        """Keep the writer."""
        self.writer = writer
        self._made = self._shrunk = 0

    @hookimpl
    def prune_masks_made(self, pruner: Any, masks: Mapping[str, Mapping[str, Any]]) -> None:
        """Write the sparsity of each layer and of all of them.

        Args:
            pruner: The pruner that made them.
            masks: The masks.
        """
        kept = total = 0
        for layer, tensors in masks.items():
            ones = sum(int((mask != 0).sum()) for mask in tensors.values())
            size = sum(mask.numel() for mask in tensors.values())
            self.writer.add_scalar(f"sparsity/{layer}", 1 - ones / max(1, size), self._made)
            kept, total = kept + ones, total + size
        # Not "sparsity" alone: trackers that keep files would need a folder of that name as well.
        self.writer.add_scalar("sparsity/total", 1 - kept / max(1, total), self._made)
        self._made += 1

    @hookimpl
    def prune_model_shrunk(self, model: Any, report: Any) -> None:
        """Write the sizes that are left, and the report as text.

        Args:
            model: The small model.
            report: What `shrink` returns.
        """
        for name in ("parameters", "flops", "bytes"):
            before, after = getattr(report, name)
            if before:
                self.writer.add_scalar(f"left/{name}", after / before, self._shrunk)
        text = "\n".join(f"    {line}" for line in str(report).splitlines())
        self.writer.add_text("report", text, self._shrunk)
        self._shrunk += 1


@contextmanager
def to_tensorboard(writer: Any) -> Iterator[TensorBoardListener]:
    """Write to TensorBoard what prune does while the block runs.

    Args:
        writer: A `SummaryWriter`, or what has its `add_scalar` and `add_text`.

    Example:
        ```python
        with to_tensorboard(SummaryWriter("runs/prune")):
            trainer.train()
        ```
    """
    listener = TensorBoardListener(writer)
    with registered(listener, "tensorboard"):
        yield listener
