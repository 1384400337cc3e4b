"""What a tape asks of an operator at every call of it, looked up once."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch

from prune_speedup.engine.graph import name_of
from prune_speedup.torch.record.data_dependent import decides

__all__ = ["Operator", "operator_of"]

_TORCH = {"aten", "prim", "prims"}
_EMPTY = {"empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided"}


class Operator(NamedTuple):
    """What an operator is like, whatever it is given.

    Attributes:
        target: The operator.
        name: Its name without namespace and overload, such as `relu`.
        positions: Where it takes each of its arguments, and what it takes if none is given.
        writes: The positions and names of the arguments that it writes to.
        makes_views: Whether its result has the memory of what it is given.
        decides: Whether its result is a plain number, or has a size, that depends on numbers.
        is_random: Whether its result depends on chance.
        is_empty: Whether its result is what memory happens to hold.
        is_foreign: Whether it is none of torch's own, so that nobody knows what it looks at.
        is_pointwise: Whether each number of its result comes of those at the same place alone.
    """

    target: Any
    name: str
    positions: Mapping[str, tuple[int, Any]]
    writes: tuple[tuple[int, str], ...]
    makes_views: bool
    decides: bool
    is_random: bool
    is_empty: bool
    is_foreign: bool
    is_pointwise: bool

    def argument(self, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """What it is given by a name, or takes if nothing is given; `None` if it takes no such."""
        position, default = self.positions.get(name, (len(args), None))
        return args[position] if position < len(args) else kwargs.get(name, default)

    def written(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[torch.Tensor]:
        """The tensors among its arguments that it writes to."""
        written: list[torch.Tensor] = []
        for position, name in self.writes:
            value = args[position] if position < len(args) else kwargs.get(name)
            items = value if isinstance(value, list | tuple) else (value,)
            written += [item for item in items if isinstance(item, torch.Tensor)]
        return written


_known: dict[int, Operator] = {}
"""By identity: a hash of an operator is a call of Python."""


def operator_of(target: Any) -> Operator:
    """What is known of an operator."""
    known = _known.get(id(target))
    if known is None or known.target is not target:
        known = _known[id(target)] = _look_up(target)
    return known


def _look_up(target: Any) -> Operator:
    arguments, returns = target._schema.arguments, target._schema.returns
    return Operator(
        target,
        name_of(target),
        {each.name: (at, each.default_value) for at, each in enumerate(arguments)},
        tuple(
            (at, each.name)
            for at, each in enumerate(arguments)
            if each.alias_info is not None and each.alias_info.is_write
        ),
        any(each.alias_info is not None and not each.alias_info.is_write for each in returns),
        decides(target),
        torch.Tag.nondeterministic_seeded in target.tags,
        name_of(target) in _EMPTY,
        target.namespace not in _TORCH,
        torch.Tag.pointwise in target.tags,
    )
