"""What every trainer needs of a schedule: begin, remember, and make the model small at the end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import prune_core
from prune_core.errors import ConfigError, shown

__all__ = ["Driver"]


class Driver:
    """Drives a pruner along a training that somebody else runs.

    Steps are counted by the optimizer itself: batches that only accumulate gradients, and steps
    that a gradient scaler skips, do not count.

    Args:
        pruner: One that follows a training, such as `AGPPruner(model, rules)` with `end_step`. Make
            it before the trainer, without an optimizer.
        example_inputs: An input of the model.
        shrink_at_end: Whether the model is made smaller when the training is over.
    """

    def __init__(self, pruner: Any, example_inputs: Any, *, shrink_at_end: bool) -> None:
        for needed in ("compress", "state_dict", "load_state_dict", "update_epoch"):
            if not callable(getattr(pruner, needed, None)):
                raise ConfigError(
                    f"pruner is {shown(pruner)}, which has no {needed}(); give a schedule that "
                    "follows a training, such as prune_schedule.AGPPruner(model, rules) with "
                    "'end_step' in its rules."
                )
        if shrink_at_end and example_inputs is None:
            raise ConfigError(
                "shrink_at_end=True needs example_inputs=, an input of the model: it is run to see "
                "which channels belong together, and to compare both models."
            )
        self.pruner, self.example_inputs = pruner, example_inputs
        self.shrink_at_end = shrink_at_end
        self.report: Any = None
        self._state: Mapping[str, Any] | None = None

    def state_dict(self) -> dict[str, Any]:
        """Where the schedule is, and its masks."""
        state: dict[str, Any] = self.pruner.state_dict()
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state when the training begins."""
        self._state = state

    def begin(self, optimizer: Any) -> None:
        """Let the schedule follow an optimizer."""
        if self._state is not None:
            self.pruner.load_state_dict(self._state)
            self._state = None
        if optimizer is not None:
            self.pruner.optimizer = optimizer
        self.pruner.compress()

    def epoch(self, number: int) -> None:
        """An epoch begins."""
        self.pruner.update_epoch(number)

    def end(self) -> None:
        """The training is over."""
        if not self.shrink_at_end or self.report is not None:
            return
        masks = self.pruner.masks
        close = getattr(self.pruner, "close_masks", None)
        if callable(close):
            # Also what comes after a masked channel, such as the bias of a normalisation.
            masks = close(self.example_inputs)
        model = self.pruner.unwrap()
        self.report = prune_core.shrink(model, self.example_inputs, masks)
