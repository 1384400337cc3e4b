"""What the Python reads that a model is written in, other than that of layers that are known."""

from collections.abc import Iterator
from types import CodeType, FunctionType

from torch import nn

from prune_core.traversal import modules_in

__all__ = ["names_in", "own_functions"]

_DROPS = frozenset(
    {"torchvision.ops.drop_block", "torchvision.ops.stochastic_depth", "timm.layers.drop"}
)
"""Where packages have layers that leave out rows or places in training, whatever the width is."""

_MANY = 20_000
_known: dict[int, tuple[CodeType, tuple[str, ...]]] = {}


def own_functions(model: nn.Module) -> Iterator[FunctionType]:
    """The functions of all classes of a model's modules, other than those that are known."""
    kinds = {*map(type, modules_in(model))}
    for base in {base for kind in kinds for base in kind.__mro__} - {object}:
        if not base.__module__.startswith("torch.") and base.__module__ not in _DROPS:
            yield from (each for each in vars(base).values() if isinstance(each, FunctionType))


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
