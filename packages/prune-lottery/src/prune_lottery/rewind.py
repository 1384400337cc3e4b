"""The forms of rewinding."""

from __future__ import annotations

from dataclasses import dataclass

from prune_core.errors import ConfigError, did_you_mean

__all__ = ["REWINDS", "Rewind"]

REWINDS = {
    "init": "the values from before the first training",
    "early:k": "the values after k steps of the first training, when the network is stable",
    "learning_rate": "no rewind of weights: they stay trained, and the learning rate starts over",
    "learning_rate:k": "the same, with the learning rate as it was after k steps",
    "none": "no rewind: training goes on, as in ordinary fine-tuning",
    "reinit": "new random values for the whole network",
    "reshuffle": "the initial values of the surviving weights, each in another one's place",
    "constant": "one magnitude for each layer, the deviation of its initial values; random signs",
    "sign:reinit": "new random magnitudes with the initial signs",
    "sign:reshuffle": "the initial magnitudes in other places, with the initial signs",
    "sign:constant": "one magnitude for each layer with the initial signs",
}

_COUNTED = ("early", "learning_rate")
_REDRAWN = ("constant", "reinit", "reshuffle")


@dataclass(frozen=True)
class Rewind:
    """One way to rewind.

    Attributes:
        spec: As the user wrote it.
        kind: Its name, without steps and signs.
        step: After how many steps of the first training the state is taken that is returned to.
        signs: Whether new values get the signs of the initial ones.
    """

    spec: str
    kind: str
    step: int = 0
    signs: bool = False

    @classmethod
    def parse(cls, spec: str) -> Rewind:
        """Read what the user wrote.

        >>> Rewind.parse("early:500").step
        500
        """
        kind, colon, rest = spec.partition(":") if isinstance(spec, str) else ("", "", "")
        if kind in _COUNTED and rest.isascii() and rest.isdigit():
            return cls(spec, kind, step=int(rest))
        if kind == "sign" and rest in _REDRAWN:
            return cls(spec, rest, signs=True)
        if not colon and kind != "early" and kind in REWINDS:
            return cls(spec, kind)
        hint = " Say after how many steps: 'early:500'." if kind == "early" else ""
        raise ConfigError(
            f"rewind is {spec!r}; it must be one of {', '.join(map(repr, REWINDS))}, where k is a "
            f"number of steps.{hint or did_you_mean(spec, REWINDS)}"
        )

    @property
    def redraws(self) -> bool:
        """Whether weights get values that they never had."""
        return self.kind in _REDRAWN

    @property
    def keeps_weights(self) -> bool:
        """Whether weights stay as they were trained."""
        return self.kind in ("learning_rate", "none")
