"""Example inputs in, outputs out: tensors and what they are nested in, as a model likes."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from types import FunctionType, ModuleType
from typing import Any

import torch
from torch import nn

from prune_core.errors import ConfigError, shown

__all__ = [
    "Found",
    "arguments",
    "call",
    "described",
    "drained",
    "found_in",
    "listed",
    "shown_error",
    "tensors_in",
]

_PLAIN = (str, bytes, int, float, complex, torch.Size, torch.dtype, torch.device, Enum)
_NO_DATA = (type(None), type, ModuleType, FunctionType, nn.Module, torch.Generator)
_DEPTH = 12


def arguments(example_inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What to call a model with: a dict holds keyword arguments, a sequence positional ones."""
    if isinstance(example_inputs, Mapping):
        return (), dict(example_inputs)
    if isinstance(example_inputs, list | tuple):
        return tuple(example_inputs), {}
    return (example_inputs,), {}


def listed(verify_inputs: Any) -> list[Any]:
    """What a user gives as more inputs, which must be a list of such."""
    single = isinstance(verify_inputs, torch.Tensor | str | Mapping)
    if single or not isinstance(verify_inputs, Iterable):
        what = "a tensor" if torch.is_tensor(verify_inputs) else shown(verify_inputs)
        raise ConfigError(f"verify_inputs is {what}; it must be a list of inputs: write [x].")
    return list(verify_inputs)


def call(model: nn.Module, example_inputs: Any) -> Any:
    """Run the model on its example inputs."""
    args, kwargs = arguments(example_inputs)
    return drained(model(*args, **kwargs))


def described(example_inputs: Any) -> str:
    """Say what the example inputs are, where the model does not run on them."""
    shapes = [tuple(tensor.shape) for _, tensor in tensors_in(arguments(example_inputs))]
    if shapes:
        return f"inputs of these shapes, {shapes}"
    what = f"{shown(example_inputs, 60)}, which holds no tensor"
    if isinstance(example_inputs, list | tuple) and all(type(n) is int for n in example_inputs):
        sizes = ", ".join(map(str, example_inputs))
        return f"{what} (of an input of this shape, make one: torch.randn({sizes}))"
    if type(example_inputs).__module__ == "numpy":
        return f"{what} (make one of it: torch.from_numpy(...))"
    return what


def shown_error(error: BaseException) -> str:
    """Return the first line of what an error says, as a sentence."""
    first = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{first.rstrip('.:')}."


def drained(result: Any) -> Any:
    """What a model returns, worked out to the end where it is a generator."""
    return list(result) if isinstance(result, Iterator) else result


class Found:
    """What results, state and inputs consist of.

    Attributes:
        tensors: Every tensor, by a readable path.
        aside: Tensors of a cache, which is there to be given back to the model.
        caches: The paths of these caches.
        plain: Numbers and texts.
        opaque: Types of objects that hold nothing that could be found.
    """

    def __init__(self) -> None:
        """Begin with nothing."""
        self.tensors: dict[str, torch.Tensor] = {}
        self.aside: dict[str, torch.Tensor] = {}
        self.caches: list[str] = []
        self.plain: dict[str, Any] = {}
        self.opaque: list[str] = []


def found_in(tree: Any) -> Found:
    """Look into mappings, sequences, dataclasses and other objects, at any depth."""
    found = Found()
    _look(tree, "", found, found.tensors, ())
    return found


def tensors_in(tree: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor of a result, without those of caches, with a readable path."""
    yield from found_in(tree).tensors.items()


def _look(
    tree: Any, path: str, found: Found, into: dict[str, torch.Tensor], around: tuple[int, ...]
) -> None:
    if isinstance(tree, torch.Tensor):
        into[path] = tree
    elif isinstance(tree, _PLAIN):
        found.plain[path] = tree
    elif isinstance(tree, _NO_DATA) or id(tree) in around or len(around) > _DEPTH:
        pass
    else:
        if type(tree).__name__.endswith("Cache"):
            if into is not found.aside:
                found.caches.append(path)
            into = found.aside
        inner = list(_items(tree))
        for name, item in inner:
            _look(item, f"{path}{name}", found, into, (*around, id(tree)))
        if not inner and not isinstance(tree, Mapping | list | tuple | set | frozenset):
            found.opaque.append(type(tree).__name__)


def _items(tree: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(tree, Mapping):
        yield from ((f"[{key!r}]", item) for key, item in tree.items())
    elif isinstance(tree, list | tuple | set | frozenset):
        yield from ((f"[{index}]", item) for index, item in enumerate(tree))
    elif is_dataclass(tree):
        yield from ((f".{each.name}", getattr(tree, each.name, None)) for each in fields(tree))
    elif hasattr(tree, "__array__") and hasattr(tree, "dtype"):
        yield from _as_tensor(tree)
    else:
        names = [*getattr(tree, "__dict__", ())]
        for kind in type(tree).__mro__:
            slots = vars(kind).get("__slots__", ())
            names += [slots] if isinstance(slots, str) else slots
        yield from ((f".{name}", getattr(tree, name, None)) for name in names)


def _as_tensor(array: Any) -> Iterator[tuple[str, Any]]:
    """An array of numpy as the tensor of the same numbers."""
    try:
        yield "", torch.as_tensor(array)
    except (TypeError, ValueError, RuntimeError):
        yield "", repr(array)
