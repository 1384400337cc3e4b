"""A model's own config, made to describe the smaller model.

Models of some libraries carry the config that they were built from, and are loaded by building
them from it again. Nothing here knows such a library or the names in its configs: an integer of
the config is taken to be a size if building the model with another value gives the small model's
shapes, and the outcome counts only if the model so built returns what the small one returns.
"""

import copy
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count, zip_longest
from math import inf
from typing import Any

import torch
from torch import nn
from torch.func import functional_call
from torch.nn.modules.module import register_module_parameter_registration_hook

from prune_speedup.torch.proof.compare import compare
from prune_speedup.torch.record.inputs import arguments, call
from prune_speedup.torch.record.isolation import evaluating, untouched

__all__ = ["ConfigChange", "follow", "shapes_of"]

_BUILDS = 80

Axis = tuple[str, int]
Path = tuple[str | int, ...]
Values = Mapping[Path, int]
Shapes = dict[str, tuple[int, ...]]


@dataclass(slots=True)
class ConfigChange:
    """What became of a model's config.

    Attributes:
        values: `{"num_attention_heads": (old, new)}`.
        missing: Why no config describes the small model; empty where one does.
    """

    values: dict[str, tuple[int, int]] = field(default_factory=dict)
    missing: str = ""

    def lines(self) -> list[str]:
        """What to print."""
        if self.missing:
            return [f"does not describe the small model, save it with save_pruned: {self.missing}"]
        return [f"{name} {old} → {new}" for name, (old, new) in self.values.items()]


def shapes_of(model: nn.Module) -> Shapes:
    """The shapes of what a model would save."""
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def follow(model: nn.Module, example_inputs: Any, before: Shapes) -> ConfigChange | None:
    """Change the integers of `model.config` so that it describes the model as it is now.

    Args:
        model: A small model. Only its config is changed, and only if that describes it.
        example_inputs: What the model is run with.
        before: The shapes that it had.

    Returns:
        What was done; None for a model that carries no config, or has kept its shapes.
    """
    config = getattr(model, "config", None)
    after = shapes_of(model)
    if not _is_config(config) or not hasattr(type(config), "from_dict") or after == before:
        return None
    if uneven := _uneven(before, after):
        return ConfigChange(missing=uneven)
    old = dict(_integers(config))
    search = _Search(model, before, after)
    with untouched(model), evaluating(model), torch.no_grad():
        expected = call(model, example_inputs)
        for values in search.fitting():
            built = _built_like(model, values)
            if not _same(expected, _run(built, example_inputs, of=model)):
                continue
            _set(config, values)
            if _same(expected, _run(model, example_inputs, of=model)):
                return ConfigChange({_name(path): (old[path], values[path]) for path in values})
            _set(config, old)
    refused = f"; other sizes are refused: {search.refusal}" if search.refusal else ""
    return ConfigChange(missing=f"no sizes in it make this model: {search.nearest}{refused}")


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


def _is_config(value: Any) -> bool:
    return callable(getattr(value, "to_dict", None)) and hasattr(value, "__dict__")


def _integers(config: Any, path: Path = ()) -> Iterator[tuple[Path, int]]:
    """The integers of a config, of its lists, and of the configs in it."""
    items = enumerate(config) if isinstance(config, list) else vars(config).items()
    for key, value in items:
        if type(value) is int:
            yield (*path, key), value
        elif isinstance(value, list) or _is_config(value):
            yield from _integers(value, (*path, key))


def _candidates(old: Values, before: Shapes, after: Shapes) -> dict[Path, list[int]]:
    """What each integer may have become: it shrank as an axis that it divides has shrunk."""
    changes = {
        (was, now)
        for name, shape in before.items()
        for was, now in zip(shape, after[name], strict=True)
        if was != now
    }
    candidates: dict[Path, list[int]] = {}
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

    def __init__(self, model: nn.Module, before: Shapes, after: Shapes) -> None:
        self._model = model
        self._before = before
        self._after = after
        self._candidates = _candidates(dict(_integers(model.config)), before, after)
        self._order = count()
        self._queue: list[tuple[int, int, int, dict[Path, int]]] = []
        self._tried: set[frozenset[tuple[Path, int]]] = {frozenset()}
        self._least: float = inf
        self.nearest = self.refusal = ""

    def fitting(self) -> Iterator[dict[Path, int]]:
        """Find values, the likeliest first."""
        wrong = self._push({}, self._before)
        useless: set[tuple[Path, int]] = set()
        while self._queue:
            amount, _, _, values = heappop(self._queue)
            if not amount:
                yield values
            mended: list[tuple[set[Axis], Path, int]] = []
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
            together: dict[Path, int] = {}
            done: set[Axis] = set()
            for axes, path, new in sorted(mended, key=lambda piece: len(piece[0])):
                if path not in together and not axes & done:
                    together[path] = new
                    done |= axes
            self._attempt(together)

    def _attempt(self, values: dict[Path, int]) -> set[Axis] | None:
        """What is still wrong with these values; None if they were tried or make no model."""
        if (key := frozenset(values.items())) in self._tried or len(self._tried) > _BUILDS:
            return None
        self._tried.add(key)
        try:
            built = _built_like(self._model, values)
        except Exception as error:
            # Sizes that do not go together are refused in as many ways as there are libraries.
            self.refusal = " ".join(str(error).split())
            return None
        return self._push(values, shapes_of(built))

    def _push(self, values: dict[Path, int], shapes: Shapes) -> set[Axis]:
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


def _built_like(model: nn.Module, values: Values) -> nn.Module:
    """A model of the same kind, built from a changed config, with no numbers in its parameters."""
    changed: Any = copy.deepcopy(model.config)
    _set(changed, values)
    # As it will be read from a file: some sizes are looked at only then.
    changed = type(changed).from_dict(changed.to_dict())

    def empty(module: nn.Module, name: str, parameter: nn.Parameter) -> nn.Parameter:
        return nn.Parameter(parameter.to("meta"), requires_grad=parameter.requires_grad)

    hook: Any = empty
    handle = register_module_parameter_registration_hook(hook)
    try:
        with torch.random.fork_rng(devices=[]):
            return type(model)(changed)
    finally:
        handle.remove()


def _run(module: nn.Module, example_inputs: Any, *, of: nn.Module) -> Any:
    """What a module returns with the tensors of another; None if it fails."""
    module.eval()
    device = next((parameter.device for parameter in of.parameters()), torch.device("cpu"))
    for holder in module.modules() if module is not of else ():
        for name, buffer in holder._buffers.items():
            if buffer is not None:
                holder._buffers[name] = buffer.to(device)
    args, kwargs = arguments(example_inputs)
    try:
        return functional_call(module, of.state_dict(keep_vars=True), args, kwargs)
    except Exception:
        return None


def _same(expected: Any, found: Any) -> bool:
    """Whether two runs of the same arithmetic agree.

    What rounding may do to different arithmetic would hide a wrong number of heads in a model
    that is hardly trained.
    """
    difference = compare(expected, found)
    return difference.relative <= difference.tolerance / 20


def _set(config: Any, values: Values) -> None:
    for path, value in values.items():
        holder: Any = config
        *outer, last = path
        for key in outer:
            holder = holder[key] if isinstance(key, int) else getattr(holder, key)
        if isinstance(last, int):
            holder[last] = value
        else:
            setattr(holder, last, value)


def _name(path: Path) -> str:
    return ".".join(map(str, path))
