"""One way of running a model."""

from dataclasses import dataclass
from typing import Any

__all__ = ["Case"]


@dataclass(frozen=True, slots=True)
class Case:
    """One way of running a model.

    Attributes:
        name: For people.
        inputs: In the form of the example.
        training: Whether the model trains.
        opened: Whether it finds everything where it looks for what is not zero.
        required: Whether the model has to accept it, because a user said so.
        otherwise: What to look at instead if it does not.
        asks: The arguments that were made up, such as `output_hidden_states=True`. What the model
            returns because of them may show its inside, which is narrower in a small one.
    """

    name: str
    inputs: Any
    training: bool = False
    opened: bool = False
    required: bool = False
    otherwise: "Case | None" = None
    asks: str = ""

    @property
    def is_made_up(self) -> bool:
        """Whether only its inputs are others than the example's, or that it trains."""
        return not (self.required or self.opened or self.asks)
