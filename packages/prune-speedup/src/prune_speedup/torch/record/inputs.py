"""Example inputs in, outputs out: a tensor, a tuple or a dict, nested as a model likes."""

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import nn

__all__ = ["arguments", "call", "tensors_in"]


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
