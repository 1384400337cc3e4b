"""What a recovery has done."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

__all__ = ["Recovery"]


@dataclass(frozen=True)
class Recovery:
    """What a recovery has done.

    Attributes:
        model: The model, trained in place.
        steps: How many steps of the optimizer were made.
        seconds: How long it took, evaluations left out.
        loss_before: The loss in eval mode before the training, on `validation` or else on the first
            batches.
        loss_after: The loss on the same batches afterwards.
        terms_before: The terms of that loss, by name: `"logits"`, `"hidden"`, `"labels"`.
        terms_after: The same afterwards.
        quality_before: What `evaluate` returned before, or None.
        quality_after: What it returned afterwards.
        zeros: How many weights were zero and stayed so.
        losses: The loss of each step.
        taken_back: Whether the loss had grown, so that the model is as it was.
    """

    model: Any = field(repr=False)
    steps: int
    seconds: float
    loss_before: float
    loss_after: float
    terms_before: dict[str, float]
    terms_after: dict[str, float]
    quality_before: float | None
    quality_after: float | None
    zeros: int
    losses: list[float] = field(repr=False)
    taken_back: bool = False

    def __str__(self) -> str:
        said = f"loss {self.loss_before:.4g} → {self.loss_after:.4g}"
        if self.quality_before is not None:
            said += f", quality {self.quality_before:.4g} → {self.quality_after:.4g}"
        steps = "1 step" if self.steps == 1 else f"{self.steps} steps"
        end = "; taken back" if self.taken_back else ""
        return f"{said} in {steps}, {self.seconds:.0f} s{end}"
