"""The round that a training gets."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prune_core.errors import ConfigError

__all__ = ["Round"]


class Round:
    """One training between two prunings.

    Attributes:
        index: 0 for the dense network, then 1, 2, …
        sparsity: The share of weights that is pruned, over all pruned layers.
        start: The step to begin with; not 0 when weights are rewound to a later moment.
        stopped: Whether the round was ended because its masks had settled.
    """

    def __init__(
        self, index: int, sparsity: float, start: int, at_step: Callable[[int], bool]
    ) -> None:
        self.index, self.sparsity, self.start = index, sparsity, start
        self.stopped = False
        self._at_step = at_step

    def steps(self, total: int) -> Iterator[int]:
        """Count the steps of a training, iterations or epochs.

        The first training goes from 0 to `total - 1`. A later one begins where its weights were
        taken. Between two steps everything must be complete, the scheduler's step included.

        Args:
            total: How many steps a whole training has.
        """
        if total <= self.start:
            raise ConfigError(
                f"this_round.steps({total}) is to go on at step {self.start}, to which the "
                "weights were rewound; the training must be longer than that."
            )
        for step in range(self.start, total):
            self.stopped = self._at_step(step)
            if self.stopped:
                return
            yield step
        self._at_step(total)
