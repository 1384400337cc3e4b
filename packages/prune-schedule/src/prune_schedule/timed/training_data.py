"""What a criterion sees of the training, where nothing else runs the model for it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from prune_core import Pruner, PruneWarning
from prune_core.calibration.processes import over_processes, total_count
from prune_core.pruning.from_training import follower
from prune_schedule.run.processes import is_first

__all__ = ["TrainingData"]


class TrainingData:
    """Gathers what a criterion needs from the training that goes on between two prunings.

    Args:
        pruner: The pruner that makes the masks.

    Attributes:
        needed: Whether the criterion needs any, and has nothing else to get it from.
    """

    def __init__(self, pruner: Pruner) -> None:
        self._pruner, self._collector = pruner, follower(pruner)
        self.needed = self._collector is not None
        self._warned = False

    def follow(self) -> None:
        """Look at the training from now on."""
        if self._collector is not None:
            self._collector.follow()

    def stop(self) -> None:
        """Look no longer; what has been seen stays."""
        if self._collector is not None:
            self._collector.stop()

    @contextmanager
    def following(self) -> Iterator[None]:
        """Look at a training that is one call."""
        self.follow()
        try:
            yield
        finally:
            self.stop()

    def missing(self) -> list[str]:
        """Return the modules of which nothing has been seen since masks were made."""
        return [] if self._collector is None else self._collector.lacking()

    def warn(self, missing: list[str]) -> None:
        """Say once that training has gone on and shown nothing of some modules."""
        if self._warned or self._collector is None:
            return
        self._warned = True
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        warnings.warn(
            f"{type(self._pruner).__name__} scores by what happens in training, and has seen "
            f"nothing of {missing[0]!r}{more} so far: {self._collector.why}, or the model was not "
            "in training mode. Masks stay as they are until it has. Give calibrate=, a function "
            "that runs the model on some batches, where training does not show it.",
            PruneWarning,
            stacklevel=4,
        )

    # --- what is kept -----------------------------------------------------------------------

    def own(self) -> dict[str, Any]:
        """Return what this process has seen, as tensors and plain data."""
        return {} if self._collector is None else self._collector.state_dict()

    def put(self, state_dict: Mapping[str, Any]) -> None:
        """Go on with what `own()` returned."""
        if self._collector is not None and state_dict:
            self._collector.load_state_dict(state_dict)

    # As a part of a checkpoint, which the first process writes for all:

    def state_dict(self) -> dict[str, Any]:
        """Return what has been seen, by all processes together, which all have to ask."""
        assert self._collector is not None
        state = self._collector.state_dict()
        sums = over_processes(state["sums"], self._collector.places())
        return {"seen": total_count(state["seen"]), "sums": sums}

    def load_state_dict(self, state_dict: Mapping[str, Any], /) -> None:
        """Go on with what had been seen; the first process has it for all."""
        assert self._collector is not None
        nothing: dict[str, Any] = {"seen": 0, "sums": {}}
        self._collector.load_state_dict(state_dict if is_first() else nothing)
