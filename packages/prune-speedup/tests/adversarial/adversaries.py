"""What an adversary is: a model, an example, and everything else that it is used for."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

__all__ = ["Adversary", "adversaries", "adversary", "image", "series", "tokens"]


@dataclass(frozen=True)
class Adversary:
    """A model that behaves otherwise away from its example.

    Attributes:
        name: Of its class.
        build: Makes the model.
        example: Makes the example inputs.
        others: Each makes other inputs.
        uses: Other things done with the model; each returns what is to be compared.
        norms: Whether norms run over channels that may go, so that the oracle has to help.
    """

    name: str
    build: Callable[[], nn.Module]
    example: Callable[[], Any]
    others: tuple[Callable[[], Any], ...] = ()
    uses: dict[str, Callable[[nn.Module, Any], Any]] = field(default_factory=dict)
    norms: bool = False


_KNOWN: dict[str, Adversary] = {}


def adversary(
    example: Callable[[], Any],
    *others: Callable[[], Any],
    norms: bool = False,
    name: str = "",
    arguments: tuple[Any, ...] = (),
    **uses: Callable[[nn.Module, Any], Any],
) -> Callable[[type[nn.Module]], type[nn.Module]]:
    """Register a class of models; an input is told by a function that makes it."""

    def register(kind: type[nn.Module]) -> type[nn.Module]:
        title = name or kind.__name__
        assert title not in _KNOWN, title
        _KNOWN[title] = Adversary(title, lambda: kind(*arguments), example, others, uses, norms)
        return kind

    return register


def adversaries() -> Iterator[Adversary]:
    """All that are known, in their order."""
    yield from _KNOWN.values()


def series(batch: int = 2, length: int = 5, width: int = 3) -> Callable[[], torch.Tensor]:
    """Random numbers per step: (batch, length, width), or (batch, width) without a length."""
    shape = (batch, length, width) if length else (batch, width)
    return lambda: torch.randn(shape, dtype=torch.float64)


def image(batch: int = 2, size: int = 8, channels: int = 3) -> Callable[[], torch.Tensor]:
    """Random pictures."""
    return lambda: torch.randn(batch, channels, size, size, dtype=torch.float64)


def tokens(batch: int = 2, length: int = 6, words: int = 20) -> Callable[[], torch.Tensor]:
    """Random words."""
    return lambda: torch.randint(0, words, (batch, length))
