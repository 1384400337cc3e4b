"""Sizes that a forward works out for itself, corrected where it uses them.

Some forwards write `x.reshape(B, N, C)` with a `C` read off another tensor, or a number in the
source: no attribute holds it. A correction says: at this place in the source, this number is that
one. It says nothing of how often the place is reached, so it is right for loops of another length,
for calls that only training makes, and when a part of the forward runs again in the backward pass.
"""

from typing import NamedTuple

from prune_core.errors import SpeedupError
from prune_speedup.torch.record.call_sites import Number
from prune_speedup.torch.record.source_places import Span

__all__ = [
    "Becomes",
    "Correction",
    "Path",
    "PlainCorrection",
    "Where",
    "become",
    "from_plain",
    "to_plain",
]


class Where(NamedTuple):
    """An expression in a function.

    Attributes:
        namespace: The name of the Python module that the function is written in.
        function: Its qualified name.
        span: Where the expression is, in lines from the function's first.
        text: How it reads, so that another version of the source is noticed.
    """

    namespace: str
    function: str
    span: Span
    text: str


Path = tuple[Where, ...]
"""From a method of a module to a call, through the functions between them."""


class Becomes(NamedTuple):
    """What a number is to be.

    Attributes:
        pairs: What it is without the correction, and what it has to be.
        scaled: Whether it is also any other number, by the same ratio: one that is made of the
            batch or of the length, such as `batch * heads`.
    """

    pairs: tuple[tuple[Number, Number], ...]
    scaled: bool = False


class Correction(NamedTuple):
    """Numbers of one call that are to be other.

    Attributes:
        path: How the call is reached from the module.
        numbers: (position among the numbers that the call is told, what it becomes).
    """

    path: Path
    numbers: tuple[tuple[int, Becomes], ...]

    def __str__(self) -> str:
        """`model.py: x.view(-1, 8)`, for people."""
        return f"{self.path[-1].text} in {self.path[-1].function}"


PlainCorrection = tuple[
    list[tuple[str, str, tuple[int, int, int, int], str]],
    list[tuple[int, list[tuple[float, float]], bool]],
]
"""A correction as a file holds it: its path, and of each number what it becomes."""


def become(becomes: Becomes, number: Number, where: str) -> Number:
    """The number that is to be there instead of another."""
    for old, new in becomes.pairs:
        if number == old:
            return new
    if becomes.scaled:
        old, new = becomes.pairs[0]
        return number * new // old if isinstance(new, int) else number * (new / old)
    known = ", ".join(f"{old} → {new}" for old, new in becomes.pairs)
    raise SpeedupError(
        f"`{where}` is given the size {number}. When this model was made smaller, only {known} was "
        "seen there, so nothing is known of this one. Shrink the model with an example, or with "
        "verify_inputs, that comes this way."
    )


def to_plain(corrections: tuple[Correction, ...]) -> list[PlainCorrection]:
    """Corrections as lists, texts and numbers."""
    return [
        (
            [(*where[:2], where.span, where.text) for where in correction.path],
            [
                (at, [(old, new) for old, new in becomes.pairs], becomes.scaled)
                for at, becomes in correction.numbers
            ],
        )
        for correction in corrections
    ]


def from_plain(plain: list[PlainCorrection]) -> tuple[Correction, ...]:
    """Corrections that were plain data."""
    return tuple(
        Correction(
            tuple(Where(*where) for where in path),
            tuple((at, Becomes(tuple(pairs), scaled)) for at, pairs, scaled in numbers),
        )
        for path, numbers in plain
    )
