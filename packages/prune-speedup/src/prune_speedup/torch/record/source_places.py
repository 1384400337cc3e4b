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
from functools import cache
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
    str(_TORCH / "_jit_internal.py"),  # chooses one of two functions, such as of a maximum
    *(str(_TORCH / "utils" / name) for name in ("_contextlib.py", "_device.py")),
    str(_TORCH / "utils" / "_python_dispatch.py"),
)
"""Where torch's functions call other functions of torch, and where they are recorded."""

_ENTRANCE = str(_TORCH / "nn" / "modules" / "module.py")

_MANY = 100_000
_steps: dict[tuple[int, int], Step] = {}


def place_of_call() -> Place:
    """Where the call of torch stands that is being made right now."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and _is_between(frame.f_code.co_filename):
        frame = frame.f_back
    steps: list[Step] = []
    while frame is not None and (file := frame.f_code.co_filename) != _ENTRANCE:
        if not _is_ours(file):  # what a corrected call goes through
            steps.append(_step(frame))
        frame = frame.f_back
    return tuple(steps) if frame is not None else ()


@cache
def _is_between(file: str) -> bool:
    return file.startswith(_BETWEEN)


@cache
def _is_ours(file: str) -> bool:
    return file.startswith(_OURS)


def key_of(place: Place) -> tuple[tuple[int, Span | None], ...]:
    """A place as something to look up by: code itself takes long to hash."""
    return tuple((id(step.code), step.span) for step in place)


def _step(frame: FrameType) -> Step:
    """What a frame is doing; remembered, for finding its expression takes a walk."""
    code, instruction = frame.f_code, frame.f_lasti
    name = frame.f_globals.get("__name__", "")
    known = _steps.get((id(code), instruction))
    if known is not None and known.code is code and known.namespace == name:
        return known
    told = next(islice(code.co_positions(), instruction // 2, None))
    span = None if None in told else told
    if len(_steps) > _MANY:
        _steps.clear()
    made = _steps[id(code), instruction] = Step(code, span, name)  # type: ignore[arg-type]
    return made
