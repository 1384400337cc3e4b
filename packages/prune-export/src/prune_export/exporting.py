"""Write a pruned model for other tools, in any format that is registered."""

from __future__ import annotations

import copy
import shutil
import tempfile
from os import PathLike
from pathlib import Path
from typing import Any

from torch import nn

from prune_core.errors import ConfigError, PluginError, UnknownNameError, shown
from prune_core.files import make_folder
from prune_core.masking import bare, unwrap
from prune_core.registry import get_entry, names

__all__ = ["export"]


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
        ```python
        prune_core.export(model, "model.onnx", example_inputs)
        ```
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
    if not name:
        known = ", ".join(sorted(names("exporter")))
        raise UnknownNameError(f"{path.name!r} has no ending; registered exporters are {known}.")
    return get_entry("exporter", name, "torch").load()


def _move(source: Path, target: Path) -> None:
    if source.is_dir() and target.is_dir():
        shutil.rmtree(target)
    source.replace(target)
