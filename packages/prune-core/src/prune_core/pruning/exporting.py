"""Write a pruned model for other tools, in any format that is registered."""

from __future__ import annotations

import copy
import shutil
import tempfile
import warnings
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import nn

from prune_core.errors import ConfigError, PluginError, UnknownNameError, did_you_mean, shown
from prune_core.files import make_folder, replacing, write_safetensors
from prune_core.masking import bare, unwrap
from prune_core.pruning.export import apart, export_onnx
from prune_core.registry import get_entry, names

__all__ = [
    "arguments",
    "export",
    "onnx",
    "open_batch",
    "program",
    "program_of",
    "safetensors",
    "state_dict",
]


def export(
    model: nn.Module,
    path: str | PathLike[str],
    example_inputs: Any = None,
    *,
    format: str | None = None,  # noqa: A002
    **options: Any,
) -> Path:
    """Write a model to a file, wrapped or not, as if it had never been wrapped.

    The exporter gets a copy of the model without wrappers, with zeros where masks are in force, in
    eval mode. Nothing is written when it fails.

    Args:
        model: The model, masked or made small.
        path: Where to write it. Its ending names the format, such as `model.onnx`.
        example_inputs: An input of the model, for formats that trace it: a tensor, a tuple of
            positional or a dict of keyword arguments.
        format: The name of a registered exporter, where the ending does not say.
        **options: Further arguments of the exporter.

    Returns:
        The path.

    Raises:
        UnknownNameError: When no exporter of that name is registered.
        PluginError: When the exporter wrote no file.

    Example:
        >>> import tempfile
        >>> from torch import nn
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     print(export(nn.Linear(2, 2), f"{folder}/model.safetensors").name)
        model.safetensors
    """
    path = Path(path)
    name = format or path.suffix[1:]
    exporter = _exporter(name, path)
    if not isinstance(model, nn.Module):
        raise ConfigError(
            f"model is {shown(model)}; it must be a torch module. For Keras there is "
            "prune_tf.export_model."
        )
    with bare(model) as inside:
        plain = unwrap(copy.deepcopy(inside)).eval()
    make_folder(path.parent)
    # Beside the file, so that what has been written can be moved there whole.
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".export-") as folder:
        exporter(plain, Path(folder) / path.name, example_inputs, **options)
        written = sorted(Path(folder).iterdir())
        if Path(folder) / path.name not in written:
            raise PluginError(f"The exporter {name!r} has not written {path.name!r}.")
        for file in written:
            _move(file, path.parent / file.name)
    return path


def _exporter(name: str, path: Path) -> Any:
    known = sorted(names("exporter"))
    if name.rpartition(":")[2] not in known:
        which = f"format is {name!r}" if name else f"{path.name!r} has no ending"
        raise UnknownNameError(
            f"{which}; registered exporters are {', '.join(known)}.{did_you_mean(name, known)}"
        )
    return get_entry("exporter", name, "torch").load()


def _move(source: Path, target: Path) -> None:
    if source.is_dir() and target.is_dir():
        shutil.rmtree(target)
    source.replace(target)


# --- the formats of prune itself ----------------------------------------------------------------


def onnx(model: nn.Module, path: Path, example_inputs: Any) -> None:
    """Write ONNX, for any batch size where the forward allows it."""
    if example_inputs is None:
        raise ConfigError("ONNX is made by tracing the model: give example_inputs.")
    args, kwargs = arguments(example_inputs)
    try:
        with torch.no_grad():
            model(*args, **kwargs)
    except Exception as error:
        raise ConfigError(
            f"The model does not run on example_inputs: {type(error).__name__}: {error}"
        ) from error
    export_onnx(model, path, args, kwargs)


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


def safetensors(model: nn.Module, path: Path, example_inputs: Any = None) -> None:
    """Write the state dict as a safetensors file."""
    write_safetensors(path, apart(model.state_dict()))


def state_dict(model: nn.Module, path: Path, example_inputs: Any = None) -> None:
    """Write the state dict with `torch.save`."""
    with replacing(path) as file:
        torch.save(model.state_dict(), file)
