"""Programs of `torch.export`, for any batch size where the forward allows it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from prune_core.errors import ConfigError
from prune_core.files import replacing

__all__ = ["arguments", "open_batch", "program", "program_of"]


def program(model: nn.Module, path: Path, example_inputs: Any = None) -> None:
    """Write the program of `torch.export`, for any batch size where the forward allows it."""
    if example_inputs is None:
        raise ConfigError("torch.export traces the model: give example_inputs.")
    made = program_of(model, *arguments(example_inputs))
    with warnings.catch_warnings(), replacing(path) as file:
        warnings.simplefilter("ignore")  # of torch, about its own code
        torch.export.save(made, file)


def program_of(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], *, batch: bool = True
) -> torch.export.ExportedProgram:
    """Return the program of `torch.export`, for any batch size unless told otherwise."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch, about its own code
        try:
            shapes = open_batch(model, args, kwargs) if batch else None
            return torch.export.export(model, args, kwargs, dynamic_shapes=shapes)
        except Exception as error:
            raise ConfigError(
                f"torch.export cannot follow the model: {type(error).__name__}: "
                f"{' '.join(str(error).split())[:300]}"
            ) from error


def open_batch(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Return the shapes for torch.export that leave the first axis of each input open.

    A batch of one says nothing of it.
    """
    shapes: Any = torch.export.ShapesCollection()  # type: ignore[no-untyped-call]
    for value in (*args, *kwargs.values()):
        if isinstance(value, torch.Tensor) and value.ndim and len(value) > 1:
            shapes[value] = {0: torch.export.Dim.AUTO}
    return shapes.dynamic_shapes(model, args, kwargs)


def arguments(inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments in a tensor, a tuple of positional or a dict of keyword ones."""
    if isinstance(inputs, Mapping):
        return (), dict(inputs)
    if isinstance(inputs, list | tuple):
        return tuple(inputs), {}
    return (inputs,), {}
