"""Write a model for runtimes that read what `torch.export` makes of it: OpenVINO and ExecuTorch."""

from __future__ import annotations

import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from prune_core.errors import ConfigError, MissingDependencyError
from prune_core.files import replacing
from prune_export.programs import arguments, program_of

__all__ = ["executorch", "openvino"]


def openvino(model: nn.Module, path: Path, example_inputs: Any = None) -> None:
    """Write OpenVINO's form, an `.xml` and a `.bin` beside it, for any batch size if possible.

    Weights keep their type; the library itself would halve them.
    """
    library = _library("openvino", "openvino")
    made = _program(model, example_inputs, "OpenVINO's form")
    try:
        converted = library.convert_model(made)
    except Exception as error:
        raise _refused("OpenVINO", error) from error
    library.save_model(converted, path, compress_to_fp16=False)


def executorch(
    model: nn.Module, path: Path, example_inputs: Any = None, *, partitioners: Any = ()
) -> None:
    """Write an ExecuTorch program, for inputs of the shapes of the example.

    Args:
        model: The model.
        path: The file.
        example_inputs: An input of the model.
        partitioners: Those of ExecuTorch's backends that are to take over parts of the program,
            such as `[XnnpackPartitioner()]`. Without any, all of it runs on portable kernels,
            which are exact and slow.
    """
    library = _library("executorch.exir", "executorch")
    made = _program(model, example_inputs, "An ExecuTorch program", open_batch=False)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of ExecuTorch, about its own code
            edge = library.to_edge_transform_and_lower(made, partitioner=list(partitioners))
            lowered = edge.to_executorch()
    except Exception as error:
        raise _refused("ExecuTorch", error) from error
    with replacing(path) as file:
        file.write(lowered.buffer)


def _program(model: nn.Module, example_inputs: Any, what: str, *, open_batch: bool = True) -> Any:
    if example_inputs is None:
        raise ConfigError(f"{what} is made by tracing the model: give example_inputs.")
    with torch.no_grad():
        return program_of(model, *arguments(example_inputs), batch=open_batch)


def _library(module: str, distribution: str) -> ModuleType:
    from importlib import import_module

    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"This format needs {distribution}, and {error.name} is missing: "
            f"`pip install 'prune-export[{distribution}]'`."
        ) from None


def _refused(name: str, error: Exception) -> ConfigError:
    return ConfigError(
        f"{name} cannot translate the model: {type(error).__name__}: "
        f"{' '.join(str(error).split())[:300]}"
    )
