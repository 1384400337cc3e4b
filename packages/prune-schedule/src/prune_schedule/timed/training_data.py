"""Data for a criterion, collected from the training itself."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from prune_core import Pruner, PruneWarning
from prune_schedule.run.processes import is_first
from prune_toolkit.from_training import follower
from prune_toolkit.running.processes import over_processes, total_count

__all__ = ["TrainingData"]


class TrainingData:
    """Collects what a criterion needs from the training between two prunings.

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
        """Start collecting."""
        if self._collector is not None:
            self._collector.follow()

    def stop(self) -> None:
        """Stop collecting; keep what has been collected."""
        if self._collector is not None:
            self._collector.stop()

    @contextmanager
    def following(self) -> Iterator[None]:
        """Collect during a training that is one call."""
        self.follow()
        try:
            yield
        finally:
            self.stop()

    def missing(self) -> list[str]:
        """Return the modules without data since masks were last made."""
        return [] if self._collector is None else self._collector.lacking()

    def warn(self, missing: list[str]) -> None:
        """Warn once that training has provided no data for some modules."""
        if self._warned or self._collector is None:
            return
        self._warned = True
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        warnings.warn(
            f"{type(self._pruner).__name__} needs data from the training, and there are none for "
            f"{missing[0]!r}{more} so far: {self._collector.why}, or the model was not in training "
            "mode. Until there are, masks stay as they are. If the training cannot provide them, "
            "give calibrate=, a function that runs the model on some batches.",
            PruneWarning,
            stacklevel=4,
        )

    # --- what is kept -----------------------------------------------------------------------

    def own(self) -> dict[str, Any]:
        """Return what this process has collected, as tensors and plain data."""
        return {} if self._collector is None else self._collector.state_dict()

    def put(self, state_dict: Mapping[str, Any]) -> None:
        """Restore what `own()` returned."""
        if self._collector is not None and state_dict:
            self._collector.load_state_dict(state_dict)

    # As a part of a checkpoint, which the first process writes for all:

    def state_dict(self) -> dict[str, Any]:
        """Return what all processes have collected together; all of them must call this."""
        assert self._collector is not None
        state = self._collector.state_dict()
        sums = over_processes(state["sums"], self._collector.places())
        return {"seen": total_count(state["seen"]), "sums": sums}

    def load_state_dict(self, state_dict: Mapping[str, Any], /) -> None:
        """Restore what had been collected; the first process holds it for all."""
        assert self._collector is not None
        nothing: dict[str, Any] = {"seen": 0, "sums": {}}
        self._collector.load_state_dict(state_dict if is_first() else nothing)
