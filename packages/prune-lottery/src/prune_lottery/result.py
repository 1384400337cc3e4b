"""The result of a lottery."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from prune_core.errors import PruneError

__all__ = ["LotteryResult", "RoundRecord"]


@dataclass(frozen=True)
class RoundRecord:
    """The result of one round.

    Attributes:
        index: The round, 0 for the dense network.
        sparsity: The share of weights that were pruned, counted over all pruned layers.
        layers: The same for each layer.
        score: What `evaluate` returned, or None.
        log: What `train` returned.
        stopped: Whether the round ended because its masks had settled.
    """

    index: int
    sparsity: float
    layers: Mapping[str, float]
    score: float | None = None
    log: Any = None
    stopped: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        return asdict(self)


@dataclass(frozen=True)
class LotteryResult:
    """The rounds that are finished.

    Attributes:
        rounds: One record for each, the dense network first.
        interrupted: Whether Ctrl-C ended the run before the last round.
        tolerance: How far below the dense score a ticket may stay and still win.
    """

    rounds: tuple[RoundRecord, ...]
    interrupted: bool = False
    tolerance: float = field(default=0.0)

    @property
    def dense(self) -> RoundRecord:
        """The round before any pruning."""
        return self.rounds[0]

    @property
    def best(self) -> RoundRecord:
        """The sparsest round that is as good as the dense one; the last, if there are no scores."""
        return best_of(self.rounds, self.tolerance)

    @property
    def winner(self) -> RoundRecord | None:
        """The sparsest ticket that is as good as the dense network, or None."""
        if self.dense.score is None:
            raise PruneError(
                "There are no scores, so no ticket can be said to win; give run() evaluate=."
            )
        return self.best if self.best.index else None

    def __str__(self) -> str:
        lines = [f"{'round':>5} {'sparsity':>9} {'score':>9}"]
        for record in self.rounds:
            score = "" if record.score is None else f"{record.score:9.4f}"
            lines.append(f"{record.index:5} {record.sparsity:9.2%} {score:>9}")
        return "\n".join(lines)


def best_of(rounds: tuple[RoundRecord, ...] | list[RoundRecord], tolerance: float) -> RoundRecord:
    """Return the last round that scores as well as the first, less a tolerance."""
    dense = rounds[0].score
    if dense is None:
        return rounds[-1]
    good = [r for r in rounds if r.score is not None and r.score >= dense - tolerance]
    return good[-1] if good else rounds[0]
