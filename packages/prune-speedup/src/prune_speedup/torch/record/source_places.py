"""Where in the source of a model a call of torch stands.

A place is the chain of calls from a module's own method down to the call of torch, each told by
its function and by the line and column of its expression. It is the same place however often it
is reached, in whichever mode and with whatever inputs:

    def heads(x, count):
        return x.view(len(x), count, -1)

    def forward(self, x):
        return heads(x, 4)

Here the place of the `view` is that expression in `heads`, within `heads(x, 4)` in `forward`.
"""

import os
import sys
from itertools import islice
from pathlib import Path
from types import CodeType, FrameType
from typing import NamedTuple

import torch

__all__ = ["Place", "Span", "Step", "key_of", "place_of_call"]

Span = tuple[int, int, int, int]
"""First line, last line, first column, last column, as an instruction tells its expression."""


class Step(NamedTuple):
    """One call on the way.

    Attributes:
        code: The function that makes it.
        span: The expression; `None` where Python was told not to keep it.
        namespace: The name of the Python module that the function is written in.
    """

    code: CodeType
    span: Span | None
    namespace: str


Place = tuple[Step, ...]
"""The innermost call first; empty where no Python of the module's own led to the call."""

_OURS = f"{Path(__file__).parents[2]}{os.sep}"
_TORCH = Path(torch.__file__).parent
_BETWEEN = (
    _OURS,
    *(
        str(_TORCH / name)
        for name in ("overrides.py", "functional.py", "nn/functional.py", "_tensor.py", "_ops.py")
    ),
    *(str(_TORCH / "utils" / name) for name in ("_contextlib.py", "_device.py")),
    str(_TORCH / "utils" / "_python_dispatch.py"),
)
"""Where torch's functions call other functions of torch, and where they are recorded."""

_ENTRANCE = str(_TORCH / "nn" / "modules" / "module.py")

_MANY = 100_000
_spans: dict[tuple[int, int], tuple[CodeType, Span | None]] = {}


def place_of_call() -> Place:
    """Where the call of torch stands that is being made right now."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(_BETWEEN):
        frame = frame.f_back
    steps: list[Step] = []
    while frame is not None and frame.f_code.co_filename != _ENTRANCE:
        code = frame.f_code
        if not code.co_filename.startswith(_OURS):  # what a corrected call goes through
            name = frame.f_globals.get("__name__", "")
            steps.append(Step(code, _span(code, frame.f_lasti), name))
        frame = frame.f_back
    return tuple(steps) if frame is not None else ()


def key_of(place: Place) -> tuple[tuple[int, Span | None], ...]:
    """A place as something to look up by: code itself takes long to hash."""
    return tuple((id(step.code), step.span) for step in place)


def _span(code: CodeType, instruction: int) -> Span | None:
    """The expression of an instruction; remembered, for finding it takes a walk."""
    known = _spans.get((id(code), instruction))
    if known is not None and known[0] is code:
        return known[1]
    told = next(islice(code.co_positions(), instruction // 2, None))
    span = None if None in told else told
    if len(_spans) > _MANY:
        _spans.clear()
    _spans[id(code), instruction] = code, span  # type: ignore[assignment]
    return span  # type: ignore[return-value]
