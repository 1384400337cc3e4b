"""Example inputs in, outputs out: a tensor, a tuple or a dict, nested as a model likes."""

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import nn

from prune_core.errors import shown

__all__ = ["arguments", "call", "described", "shown_error", "tensors_in"]


def arguments(example_inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What to call a model with: a dict holds keyword arguments, a sequence positional ones."""
    if isinstance(example_inputs, Mapping):
        return (), dict(example_inputs)
    if isinstance(example_inputs, list | tuple):
        return tuple(example_inputs), {}
    return (example_inputs,), {}


def call(model: nn.Module, example_inputs: Any) -> Any:
    """Run the model on its example inputs."""
    args, kwargs = arguments(example_inputs)
    return model(*args, **kwargs)


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


def tensors_in(
    tree: Any, path: str = "", opaque: list[str] | None = None
) -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor of nested mappings, sequences and dataclasses, with a readable path.

    An object of another kind, such as a key/value cache, is not looked into: its type is added
    to `opaque`.
    """
    if isinstance(tree, torch.Tensor):
        yield path, tree
    elif isinstance(tree, Mapping):
        for key, item in tree.items():
            yield from tensors_in(item, f"{path}[{key!r}]", opaque)
    elif isinstance(tree, list | tuple | set | frozenset):
        for index, item in enumerate(tree):
            yield from tensors_in(item, f"{path}[{index}]", opaque)
    elif is_dataclass(tree) and not isinstance(tree, type):
        for each in fields(tree):
            yield from tensors_in(getattr(tree, each.name), f"{path}.{each.name}", opaque)
    elif opaque is not None and not isinstance(tree, str | bytes | int | float | complex | None):
        opaque.append(type(tree).__name__)
