"""Early-bird tickets: stop a training once the masks do not change any more."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from prune_core.errors import ConfigError
from prune_core.masking import Masks
from prune_core.options import ChecksOptions

__all__ = ["EarlyBird", "MaskWatch", "mask_distance"]


@dataclass(frozen=True)
class EarlyBird(metaclass=ChecksOptions):
    """When masks count as settled.

    The masks of the next round are made after every step of the training. When each of the last
    `window` differs from the newest in less than the share `distance` of its values, the ticket
    is drawn and the round ends.

    You et al., Drawing Early-Bird Tickets, https://arxiv.org/abs/1909.11957

    Args:
        distance: The share of values, 0.1 in the paper.
        window: How many earlier masks the newest is compared with, 5 in the paper.
    """

    distance: float = 0.1
    window: int = 5

    def __post_init__(self) -> None:
        if not 0 < self.distance <= 1:
            raise ConfigError(
                f"EarlyBird(distance={self.distance!r}): it must be greater than 0 and at most 1; "
                "the paper takes 0.1."
            )
        if not isinstance(self.window, int) or self.window < 1:
            raise ConfigError(
                f"EarlyBird(window={self.window!r}): it must be a whole number of at least 1."
            )


def mask_distance(
    one: Mapping[str, Mapping[str, Tensor]], other: Mapping[str, Mapping[str, Tensor]]
) -> float:
    """Return the share of values in which two sets of masks differ."""
    pairs = [(m, other[module][name]) for module, ms in one.items() for name, m in ms.items()]
    different = sum(int((a != b).count_nonzero()) for a, b in pairs)
    return different / max(1, sum(a.numel() for a, _ in pairs))


class MaskWatch:
    """Watches masks, and tells when they have settled.

    Args:
        rule: When that is.
    """

    def __init__(self, rule: EarlyBird) -> None:
        self.rule = rule
        self._earlier: deque[Masks] = deque(maxlen=rule.window)

    def settled(self, masks: Masks) -> bool:
        """Add the newest masks, and return whether they have settled."""
        full = len(self._earlier) == self.rule.window
        near = all(mask_distance(masks, m) < self.rule.distance for m in self._earlier)
        self._earlier.append(masks)
        return full and near
