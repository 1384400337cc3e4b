"""The numbers with which the config of a model describes what became of it.

An integer of the config is taken to be a size if building the model with another value gives the
small model's shapes, and the outcome counts only if the model so built returns what the small one
returns.

Some sizes are not in the config, and the model makes them up: `getattr(config, "head_dim", None) or
hidden_size // num_heads`. With fewer heads it would make up another. So the names that it asks for
in vain are found out, and the value that it has made up is written down.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import nn

from prune_speedup.torch.model_config.build import (
    Shapes,
    as_read,
    builder,
    built_like,
    run_as,
    shapes_of,
)
from prune_speedup.torch.model_config.layer_configs import are_of_several_kinds, holders_of
from prune_speedup.torch.model_config.layers import values_by_layer
from prune_speedup.torch.model_config.numbers import (
    Keys,
    Values,
    integers,
    is_config,
    overrides_of,
)
from prune_speedup.torch.model_config.search import Search

__all__ = ["find_values"]

_FEW_BUILDS, _BUILDS = 25, 80
_ODD = 13
"""A number that no size is likely to have, and that few sizes divide."""

_ALIKE = "prune(..., uniform=True) takes the same from layers that are alike"


def find_values(
    model: nn.Module,
    args: Any,
    kwargs: Mapping[str, Any],
    as_expected: Callable[[Any], bool],
    before: Shapes,
    after: Shapes,
) -> tuple[dict[Keys, int], str]:
    """Find numbers with which the config of a model describes it.

    Args:
        model: A small model, in eval mode. Neither it nor its config is changed.
        args: What the model is run with, by position,
        kwargs: and by name.
        as_expected: Whether something is what it returns.
        before: The shapes that its tensors had.
        after: The shapes that they have.

    Returns:
        The numbers that have to be others, and an empty text; or none, and why there are none.
    """
    uneven = _uneven(before, after)
    holders = [holder for _, holder in holders_of(model.config)]
    if uneven and not holders:
        return {}, f"{uneven}; {_ALIKE}"
    # Layers that were never alike may have lost different shares, though none is seen to be uneven.
    by_layer = bool(uneven) or any(map(overrides_of, holders))
    by_layer = by_layer or are_of_several_kinds(model, model.config)
    searches: list[Search] = []

    def same(values: Values) -> bool:
        try:
            built = built_like(model, values)
        except Exception:
            return False  # sizes that do not go together are refused in many ways
        if shapes_of(built) != after:
            return False
        return as_expected(run_as(built, args, kwargs, of=model))

    known: dict[frozenset[tuple[Keys, Any]], Shapes] = {}

    def make(values: Values) -> Shapes:
        key = frozenset(values.items())
        if key not in known:
            known[key] = shapes_of(built_like(model, values))
        return known[key]

    def fitting(made_up: Values, builds: int) -> Iterator[dict[Keys, int]]:
        if not uneven:
            old = {**dict(integers(model.config)), **made_up}
            searches.append(Search(old, make, before, after, base=made_up, builds=builds))
            yield from searches[-1].fitting()
        if by_layer:
            yield from values_by_layer(model, before, after, base=made_up, builds=builds)

    # Most configs have all sizes, and the few that changed are soon found. Which sizes the model
    # makes up takes a while to find out, so it is asked for only then.
    for builds, open_sizes in ((_FEW_BUILDS, False), (_BUILDS, True), (_BUILDS, False)):
        made_up = _made_up(model, before, after) if open_sizes else {}
        if open_sizes and not made_up:
            continue
        for values in fitting(made_up, builds):
            if same(values):
                needed = _without_needless(values, made_up, same)
                return {keys: needed[keys] for keys in sorted(needed, key=str)}, ""
    if uneven:
        return {}, f"{uneven}, and no numbers of single layers make this model either; {_ALIKE}"
    search = searches[-1]
    refused = f"; other sizes are refused: {search.refusal}" if search.refusal else ""
    return {}, f"no sizes in it make this model: {search.nearest}{refused}"


def _without_needless(
    values: Mapping[Keys, int], made_up: Values, same: Callable[[Values], bool]
) -> dict[Keys, int]:
    """Leave out what the model may as well go on making up."""
    needed = dict(values)
    for keys in made_up:
        less = {other: value for other, value in needed.items() if other != keys}
        if same(less):
            needed = less
    return needed


def _uneven(before: Shapes, after: Shapes) -> str:
    """Layers that were alike and are so no longer: what one number cannot describe."""
    seen: dict[tuple[str, tuple[int, ...]], str] = {}
    for name, shape in before.items():
        first = seen.setdefault((re.sub(r"\d+", "*", name), shape), name)
        if after.get(first) != after.get(name):
            return f"{first!r} is now {after.get(first)} and {name!r} is {after.get(name)}"
    return ""


def _made_up(model: nn.Module, before: Shapes, after: Shapes) -> dict[Keys, int]:
    """Sizes that the model works out because its config does not have them, and what they are.

    The value that it makes up changes nothing when it is written down, and another one does. It is
    a quotient of others, as the width of a head is, or the length of an axis: a hidden layer is
    often four times as wide as the model.
    """
    old = dict(integers(model.config))
    long = {size for shape in before.values() for size in shape}
    quotients = {
        a // b
        for a in old.values()
        for b in old.values()
        if 1 < b < a and a % b == 0 and any(size % (a // b) == 0 for size in long)
    }
    lengths = {
        was
        for name, shape in before.items()
        for was, now in zip(shape, after[name], strict=True)
        if was != now
    }
    guesses = [*sorted(quotients), *sorted(lengths - quotients)]
    found: dict[Keys, int] = {}
    for keys in _mattering(model, _asked_in_vain(model), before) if guesses else ():
        for value in guesses:
            if _shapes_with(model, {keys: value}) == before:
                others = (_shapes_with(model, {keys: other}) for other in (2 * value, value + 1))
                if any(shapes not in (None, before) for shapes in others):
                    found[keys] = value
                break
    return found


def _mattering(model: nn.Module, names: list[Keys], before: Shapes) -> list[Keys]:
    """Those that change a model's shapes when they have a number; all others are tried at once."""
    if not names or _shapes_with(model, dict.fromkeys(names, _ODD)) == before:
        return []
    if len(names) == 1:
        return names
    half = len(names) // 2
    return [
        each for some in (names[:half], names[half:]) for each in _mattering(model, some, before)
    ]


def _shapes_with(model: nn.Module, values: Values) -> Shapes | None:
    """The shapes of a model built from a changed config; None for sizes that make no model."""
    try:
        return shapes_of(built_like(model, values))
    except Exception:
        return None  # they are refused in as many ways as there are libraries


def _asked_in_vain(model: nn.Module) -> list[Keys]:
    """What the config of a model leaves open: what it is asked for in vain, and what is None."""
    config = as_read(model.config)
    asked: dict[Keys, None] = {}

    def listen(holder: Any, path: Keys) -> None:
        kind = type(holder)

        def missing(self: Any, name: str) -> Any:
            if not name.startswith("_"):
                asked[(*path, name)] = None
            inherited = getattr(kind, "__getattr__", None)
            if inherited is not None:
                return inherited(self, name)
            raise AttributeError(f"{kind.__name__!r} object has no attribute {name!r}")

        holder.__class__ = type(kind.__name__, (kind,), {"__getattr__": missing})
        for key, value in list(vars(holder).items()):
            if value is None and not key.startswith("_"):
                asked[(*path, key)] = None
            if is_config(value):
                listen(value, (*path, key))

    try:
        listen(config, ())
        builder(model)(config)
    except Exception:
        return []  # a class that cannot be listened to
    return list(asked)
