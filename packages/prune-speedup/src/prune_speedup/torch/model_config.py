"""The config that a model was built from, made to describe the smaller model.

Models of some libraries carry such a config, and are loaded by building them from it again.
Nothing here knows such a library or the names in its configs: an integer of the config is taken to
be a size if building the model with another value gives the small model's shapes, and the outcome
counts only if the model so built returns what the small one returns.

Some sizes are not in the config, and the model makes them up: `getattr(config, "head_dim", None) or
hidden_size // num_heads`. With fewer heads it would make up another. So the names that it asks for
in vain are found out, and the value that it has made up is written down.
"""

import copy
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from heapq import heappop, heappush
from itertools import count, zip_longest
from math import inf
from typing import Any

import torch
from torch import nn
from torch.func import functional_call
from torch.nn.modules.module import register_module_parameter_registration_hook

from prune_speedup.torch.proof.compare import compare
from prune_speedup.torch.record.inputs import arguments

__all__ = [
    "Keys",
    "Shapes",
    "Values",
    "built_like",
    "find_values",
    "integers",
    "is_config",
    "put_values",
    "run_as",
    "run_built",
    "same_outputs",
    "shapes_of",
]

_FEW_BUILDS, _BUILDS = 25, 80

Axis = tuple[str, int]
Keys = tuple[str | int, ...]
"""Where a number stands: names of attributes, and places in lists."""
Values = Mapping[Keys, int]
Shapes = Mapping[str, tuple[int, ...]]


def find_values(
    model: nn.Module, args: Any, kwargs: Mapping[str, Any], before: Shapes, after: Shapes
) -> tuple[dict[Keys, int], str]:
    """Find numbers with which the config of a model describes it.

    Args:
        model: A small model, in eval mode. Neither it nor its config is changed.
        args: What the model is run with, by position,
        kwargs: and by name.
        before: The shapes that its tensors had.
        after: The shapes that they have.

    Returns:
        The numbers that have to be others, and an empty text; or none, and why there are none.
    """
    if uneven := _uneven(before, after):
        return {}, uneven
    expected = model(*args, **kwargs)

    def same(values: Values) -> bool:
        built = built_like(model, values)
        if shapes_of(built) != after:
            return False
        return same_outputs(expected, run_as(built, args, kwargs, of=model))

    # Most configs have all sizes, and the few that changed are soon found. Which sizes the model
    # makes up takes a while to find out, so it is asked for only then.
    for builds, open_sizes in ((_FEW_BUILDS, False), (_BUILDS, True), (_BUILDS, False)):
        made_up = _made_up(model, before) if open_sizes else {}
        if open_sizes and not made_up:
            continue
        search = _Search(model, before, after, made_up, builds)
        for values in search.fitting():
            if same(values):
                return _without_needless(values, made_up, same), ""
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


def shapes_of(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Return the shapes of what a model would save."""
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def _uneven(before: Shapes, after: Shapes) -> str:
    """Layers that were alike and are so no longer: what one number cannot describe."""
    seen: dict[tuple[str, tuple[int, ...]], str] = {}
    for name, shape in before.items():
        first = seen.setdefault((re.sub(r"\d+", "*", name), shape), name)
        if after.get(first) != after.get(name):
            return (
                f"{first!r} is now {after.get(first)} and {name!r} is {after.get(name)}; "
                "prune(..., uniform=True) takes the same from layers that are alike"
            )
    return ""


def is_config(value: Any) -> bool:
    """Whether this is what a library keeps the sizes of a model in."""
    return callable(getattr(value, "to_dict", None)) and hasattr(value, "__dict__")


def integers(config: Any, path: Keys = ()) -> Iterator[tuple[Keys, int]]:
    """Yield the integers of a config, of its lists, and of the configs in it."""
    items = enumerate(config) if isinstance(config, list) else vars(config).items()
    for key, value in items:
        if type(value) is int:
            yield (*path, key), value
        elif isinstance(value, list) or is_config(value):
            yield from integers(value, (*path, key))


def _made_up(model: nn.Module, before: Shapes) -> dict[Keys, int]:
    """Sizes that the model works out because its config does not have them, and what they are.

    The value that it makes up changes nothing when it is written down, and another one does.
    """
    old = dict(integers(model.config))
    long = {size for shape in before.values() for size in shape}
    quotients = sorted(
        {
            a // b
            for a in old.values()
            for b in old.values()
            if 1 < b < a and a % b == 0 and any(size % (a // b) == 0 for size in long)
        }
    )
    found: dict[Keys, int] = {}
    for keys in _asked_in_vain(model):
        for value in quotients:
            if _shapes_with(model, {keys: value}) == before:
                others = (_shapes_with(model, {keys: other}) for other in (2 * value, value + 1))
                if any(shapes not in (None, before) for shapes in others):
                    found[keys] = value
                break
    return found


def _shapes_with(model: nn.Module, values: Values) -> Shapes | None:
    """The shapes of a model built from a changed config; None for sizes that make no model."""
    try:
        return shapes_of(built_like(model, values))
    except Exception:
        return None  # they are refused in as many ways as there are libraries


def _asked_in_vain(model: nn.Module) -> list[Keys]:
    """What the config of a model leaves open: what it is asked for in vain, and what is None."""
    config = _as_read(model.config)
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
        _build(model, config)
    except Exception:
        return []  # a class that cannot be listened to
    return list(asked)


def _candidates(old: Values, before: Shapes, after: Shapes) -> dict[Keys, list[int]]:
    """What each integer may have become: it shrank as an axis that it divides has shrunk."""
    changes = {
        (was, now)
        for name, shape in before.items()
        for was, now in zip(shape, after[name], strict=True)
        if was != now
    }
    candidates: dict[Keys, list[int]] = {}
    for path, value in old.items():
        found = {
            value * now // was
            for was, now in changes
            if value > 1 and was % value == 0 and value * now % was == 0
        }
        if found:
            candidates[path] = sorted(found)
    return candidates


class _Search:
    """The values of a config with which a model of given shapes is built.

    Attributes:
        nearest: Where the best values still fail, for people.
        refusal: Why other values make no model at all.
    """

    def __init__(
        self, model: nn.Module, before: Shapes, after: Shapes, base: Values, builds: int
    ) -> None:
        self._model = model
        self._base, self._builds = base, builds
        self._before = before
        self._after = after
        self._candidates = _candidates(dict(integers(model.config)), before, after)
        self._order = count()
        self._queue: list[tuple[int, int, int, dict[Keys, int]]] = []
        self._tried: set[frozenset[tuple[Keys, int]]] = {frozenset()}
        self._least: float = inf
        self.nearest = self.refusal = ""

    def fitting(self) -> Iterator[dict[Keys, int]]:
        """Find values, the likeliest first."""
        wrong = self._push({}, self._before)
        useless: set[tuple[Keys, int]] = set()
        while self._queue:
            amount, _, _, values = heappop(self._queue)
            if not amount:
                yield {**self._base, **values}
            mended: list[tuple[set[Axis], Keys, int]] = []
            for path, news in self._candidates.items():
                for new in news if path not in values else ():
                    if (path, new) in useless:
                        continue
                    left = self._attempt({**values, path: new})
                    if left is None or values:
                        continue
                    if left < wrong:
                        mended.append((wrong - left, path, new))
                    elif left > wrong:
                        useless.add((path, new))
            # What a single change mends hints at how many go together; the finest pieces first.
            together: dict[Keys, int] = {}
            done: set[Axis] = set()
            for axes, path, new in sorted(mended, key=lambda piece: len(piece[0])):
                if path not in together and not axes & done:
                    together[path] = new
                    done |= axes
            self._attempt(together)

    def _attempt(self, values: dict[Keys, int]) -> set[Axis] | None:
        """What is still wrong with these values; None if they were tried or make no model."""
        if (key := frozenset(values.items())) in self._tried or len(self._tried) > self._builds:
            return None
        self._tried.add(key)
        try:
            built = built_like(self._model, {**self._base, **values})
        except Exception as error:
            # Sizes that do not go together are refused in as many ways as there are libraries.
            self.refusal = " ".join(str(error).split())
            return None
        return self._push(values, shapes_of(built))

    def _push(self, values: dict[Keys, int], shapes: Shapes) -> set[Axis]:
        wrong = _wrong(shapes, self._after)
        heappush(self._queue, (len(wrong), len(values), next(self._order), values))
        if 0 < len(wrong) < self._least:
            self._least = len(wrong)
            name, _ = min(wrong)
            self.nearest = f"{name!r} would be {shapes.get(name)}, and is {self._after.get(name)}"
        return wrong


def _wrong(shapes: Shapes, wanted: Shapes) -> set[Axis]:
    """The axes of which a model and the one that is wanted differ in length."""
    return {
        (name, axis)
        for name in shapes.keys() | wanted.keys()
        for axis, (have, want) in enumerate(zip_longest(shapes.get(name, ()), wanted.get(name, ())))
        if have != want
    }


def built_like(model: nn.Module, values: Values) -> nn.Module:
    """Return a model of the same kind, from a changed config, its parameters without numbers."""
    changed: Any = copy.deepcopy(model.config)
    put_values(changed, values)
    return _build(model, _as_read(changed))


def _as_read(config: Any) -> Any:
    """A copy of a config, as it will be read from a file: some sizes are looked at only then."""
    return type(config).from_dict(copy.deepcopy(config).to_dict())


def _build(model: nn.Module, config: Any) -> nn.Module:
    def empty(module: nn.Module, name: str, parameter: nn.Parameter) -> nn.Parameter:
        return nn.Parameter(parameter.to("meta"), requires_grad=parameter.requires_grad)

    hook: Any = empty
    handle = register_module_parameter_registration_hook(hook)
    try:
        with torch.random.fork_rng(devices=[]), _without_first_numbers():
            return type(model)(config)
    finally:
        handle.remove()


def _without_first_numbers() -> AbstractContextManager[None]:
    """Spare a model of transformers drawing numbers for parameters that have room for none."""
    library = sys.modules.get("transformers.initialization")
    spare: Any = getattr(library, "no_init_weights", nullcontext)
    made: AbstractContextManager[None] = spare()
    return made


def run_as(module: nn.Module, args: Any, kwargs: Mapping[str, Any], *, of: nn.Module) -> Any:
    """What a module returns with the tensors of another; None if it fails."""
    module.eval()
    device = next((parameter.device for parameter in of.parameters()), torch.device("cpu"))
    for holder in module.modules():
        for name, buffer in holder._buffers.items():
            if buffer is not None:
                holder._buffers[name] = buffer.to(device)
    try:
        return functional_call(module, of.state_dict(keep_vars=True), args, dict(kwargs))
    except Exception:
        return None


def run_built(module: nn.Module, example_inputs: Any, *, of: nn.Module) -> Any:
    """Return what a built module returns with the tensors of another one; None if it fails."""
    args, kwargs = arguments(example_inputs)
    return run_as(module, args, kwargs, of=of)


def same_outputs(expected: Any, found: Any) -> bool:
    """Return whether two runs of the same arithmetic agree.

    What rounding may do to different arithmetic would hide a wrong number of heads in a model
    that is hardly trained.
    """
    difference = compare(expected, found)
    return difference.relative <= difference.tolerance / 20


def put_values(config: Any, values: Values) -> None:
    """Write numbers to their places in a config."""
    for keys, value in values.items():
        holder: Any = config
        *outer, last = keys
        for key in outer:
            holder = holder[key] if isinstance(key, int) else getattr(holder, key)
        if isinstance(last, int):
            holder[last] = value
        else:
            setattr(holder, last, value)
