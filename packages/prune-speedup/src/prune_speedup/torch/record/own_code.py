"""What the Python reads that a model is written in, other than that of layers that are known."""

from collections.abc import Iterator
from contextlib import suppress
from functools import cached_property, partial
from types import CodeType, FunctionType
from typing import Any

from torch import nn

from prune_core.traversal import modules_in

__all__ = ["mentions", "names_in", "own_functions"]

_DROPS = frozenset(
    {"torchvision.ops.drop_block", "torchvision.ops.stochastic_depth", "timm.layers.drop"}
)
"""Where packages have layers that leave out rows or places in training, whatever the width is."""

_MANY = 20_000
_known: dict[int, tuple[CodeType, tuple[str, ...]]] = {}


def own_functions(model: nn.Module) -> Iterator[FunctionType]:
    """The functions that a model is written in, other than those of layers that are known.

    These are the methods of its classes, what they decorate, and what they name in the same files.
    """
    kinds = {*map(type, modules_in(model))}
    bases = {base for kind in kinds for base in kind.__mro__} - {object}
    own = [
        base
        for base in bases
        if not base.__module__.startswith("torch.") and base.__module__ not in _DROPS
    ]
    waiting: list[Any] = [member for base in own for member in vars(base).values()]
    seen: set[int] = set()
    while waiting:
        member = waiting.pop()
        if isinstance(member, staticmethod | classmethod):
            waiting.append(member.__func__)
        elif isinstance(member, property):
            waiting += [member.fget, member.fset]
        elif isinstance(member, cached_property | partial):
            waiting.append(member.func)
        elif isinstance(member, FunctionType) and id(member) not in seen:
            seen.add(id(member))
            yield member
            waiting += _named_by(member)


def _named_by(function: FunctionType) -> Iterator[Any]:
    """What a function names that its file defines, and what it was made around."""
    wide = function.__globals__
    for each in map(wide.get, names_in(function.__code__)):
        if isinstance(each, FunctionType) and each.__globals__ is wide:
            yield each
    for cell in function.__closure__ or ():
        with suppress(ValueError):  # nothing is in it yet
            yield cell.cell_contents


def mentions(code: CodeType, name: str) -> bool:
    """Whether code reads a global or an attribute of a name, or has that as a text."""
    inner = [each for each in code.co_consts if isinstance(each, CodeType)]
    return (
        name in names_in(code)
        or name in code.co_consts
        or any(mentions(each, name) for each in inner)
    )


def names_in(code: CodeType) -> tuple[str, ...]:
    """The global and attribute names that code reads, functions inside of it included."""
    known = _known.get(id(code))
    if known is not None and known[0] is code:
        return known[1]
    found = dict.fromkeys(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            found |= dict.fromkeys(names_in(constant))
    if len(_known) > _MANY:
        _known.clear()
    _known[id(code)] = code, tuple(found)
    return tuple(found)
