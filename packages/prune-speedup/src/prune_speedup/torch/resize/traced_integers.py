"""Integers that remember which attribute they come from.

`heads = 4` and `window = 4` are equal, and only one of them is what a `view` is told. So while a
model runs on trial, the integers that its modules keep are replaced by equal ones that remember
their attribute, through arithmetic too:

    x.view(b, t, self.heads, -1)                # told a 4 that is the heads, not the window
    x.reshape(b, t, self.heads * self.width)    # told a 32 that is made of both
"""

import operator
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import nn

from prune_speedup.torch.record.call_sites import Number

__all__ = ["Source", "read", "remembering", "solved", "write"]


class Source(NamedTuple):
    """Where a module keeps an integer.

    Attributes:
        module: The module's name.
        path: The attribute, and what to look up in it where it is a tuple, a list or a dict. For a
            module that says itself what its state is, `STATE` stands for that.
    """

    module: str
    path: tuple[str | int, ...]

    def __str__(self) -> str:
        """`attention.heads`, for people."""
        return ".".join(map(str, (*filter(None, [self.module]), *self.path)))


STATE = "__getstate__"

_OWN = frozenset(vars(nn.Module()))
_DEPTH, _LONG = 3, 64


class _Origin(NamedTuple):
    """What a number is made of.

    Attributes:
        kept: The integers that were kept.
        formula: How it is made of them.
        model: Whose they are: a function that remembers results may give those of another model.
    """

    kept: Mapping[Source, int]
    formula: Callable[[Mapping[Source, int]], Number]
    model: Callable[[], nn.Module | None]


class _Int(int):
    origin: _Origin


class _Float(float):
    origin: _Origin


def _made(number: Any, origin: _Origin) -> Any:
    kind: Any = {int: _Int, float: _Float}.get(type(number))
    if kind is None:
        return number
    made = kind(number)
    made.origin = origin
    return made


def _origin_of(number: Any) -> _Origin:
    if isinstance(number, _Int | _Float):
        return number.origin
    return _Origin({}, lambda kept: number, lambda: None)


def _plain(number: Any) -> Number:
    return int(number) if isinstance(number, int) else float(number)


def _arithmetic(operation: Callable[..., Any], *, swapped: bool) -> Callable[[Any, Any], Any]:
    def method(self: Any, other: Any) -> Any:
        if not isinstance(other, int | float):
            return NotImplemented
        left, right = (other, self) if swapped else (self, other)
        first, second = _origin_of(left), _origin_of(right)

        def formula(kept: Mapping[Source, int]) -> Number:
            made: Number = operation(first.formula(kept), second.formula(kept))
            return made

        origin = _Origin({**first.kept, **second.kept}, formula, self.origin.model)
        return _made(operation(_plain(left), _plain(right)), origin)

    return method


for _name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow"):
    for _kind in (_Int, _Float):
        _operation = getattr(operator, _name)
        setattr(_kind, f"__{_name}__", _arithmetic(_operation, swapped=False))
        setattr(_kind, f"__r{_name}__", _arithmetic(_operation, swapped=True))


def solved(
    model: nn.Module,
    told: Any,
    wanted: Number,
    known: Mapping[Source, int],
    ratios: Iterable[tuple[int, int]] = (),
    *,
    alone: bool = False,
) -> dict[Source, int] | None:
    """The value of one attribute more with which a number is what it should have been.

    Args:
        model: Whose attributes.
        told: The number.
        wanted: What it should have been.
        known: New values of some attributes.
        ratios: By which it may change beside that of what is wanted to what was told.
        alone: Whether to look only at numbers that one attribute makes.

    Returns:
        Nothing where it is right with what is known; `None` where no one attribute makes it right.
    """
    kept, formula, owner = _origin_of(told)
    if not kept or owner() is not model or (alone and len(kept) > 1):
        return None
    values = {**kept, **{source: new for source, new in known.items() if source in kept}}
    tries: list[dict[Source, int]] = [{}] + [
        {source: int(old * new // was)}
        for source, old in kept.items()
        for was, new in ((told, wanted), *ratios)
        if source not in known and was and not old * new % was
    ]
    for more in tries:
        try:
            if formula({**values, **more}) == wanted:
                return more
        except ArithmeticError:
            continue
    return None


@contextmanager
def remembering(model: nn.Module) -> Iterator[None]:
    """Let all integers that the modules of a model keep remember where they are kept."""
    saved: list[tuple[nn.Module, dict[str, Any]]] = []
    try:
        for name, module in model.named_modules():
            if not isinstance(module, torch.jit.ScriptModule):
                saved.append((module, dict(vars(module))))
                _remember(name, module, weakref.ref(model))
        yield
    finally:
        for module, before in saved:
            vars(module).clear()
            vars(module).update(before)


def _remember(name: str, module: Any, model: Any) -> None:
    def marked(value: Any, path: tuple[str | int, ...]) -> Any:
        """The same value with its integers remembering; the very same if there are none."""
        kind = type(value)
        if kind is int:
            source = Source(name, path)
            return _made(value, _Origin({source: value}, lambda kept: kept[source], model))
        if kind not in (tuple, list, dict) or len(path) > _DEPTH or len(value) > _LONG:
            return value
        pairs = list(value.items() if kind is dict else enumerate(value))
        items = [marked(item, (*path, key)) for key, item in pairs]
        if all(new is old for new, (_, old) in zip(items, pairs, strict=True)):
            return value
        return dict(zip(value, items, strict=True)) if kind is dict else kind(items)

    if _has_its_own_state(module):
        module.__setstate__(marked(module.__getstate__(), (STATE,)))
        return
    for key, value in list(vars(module).items()):
        if key not in _OWN and (new := marked(value, (key,))) is not value:
            vars(module)[key] = new


def _has_its_own_state(module: nn.Module) -> bool:
    """Whether a module is made again from what its class takes for its state.

    One that has tensors or parts may make new ones then.
    """
    kind: Any = type(module)
    whole = kind.__getstate__ is object.__getstate__ or kind.__setstate__ is nn.Module.__setstate__
    return not whole and not any(True for _ in module.children()) and not module.state_dict()


def read(model: nn.Module, source: Source) -> int:
    """What a module keeps there."""
    module: Any = model.get_submodule(source.module)
    first, *keys = source.path
    value: Any = module.__getstate__() if first == STATE else vars(module)[first]
    for key in keys:
        value = value[key]
    found: int = value
    return found


def write(model: nn.Module, source: Source, value: int) -> None:
    """Let a module keep another integer there; a list or a dict is replaced, not changed."""
    module: Any = model.get_submodule(source.module)
    first, *keys = source.path
    if first == STATE:
        module.__setstate__(_replaced(module.__getstate__(), keys, value))
    else:
        setattr(module, str(first), _replaced(vars(module)[first], keys, value))


def _replaced(tree: Any, keys: list[Any], value: int) -> Any:
    if not keys:
        return value
    key, *rest = keys
    if isinstance(tree, dict):
        return {**tree, key: _replaced(tree[key], rest, value)}
    items = [_replaced(item, rest, value) if at == key else item for at, item in enumerate(tree)]
    return type(tree)(items)
