"""ONNX, for any batch size where the forward allows it."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from prune_core.errors import ConfigError, MissingDependencyError, warn
from prune_export.programs import arguments

__all__ = ["export_onnx", "onnx"]


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


def export_onnx(
    plain: nn.Module, path: str | PathLike[str], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> None:
    """Write a model without wrappers as ONNX, traced with these arguments.

    Raises:
        MissingDependencyError: When what torch exports with is not installed.
        ConfigError: When torch does not export the model.
    """
    try:
        import onnxscript  # noqa: F401
    except ImportError:
        raise MissingDependencyError(
            "ONNX export needs onnx and onnxscript: `pip install 'prune-export[onnx]'`."
        ) from None
    with _quiet():
        program = _for_any_batch(plain, args, kwargs)
        fixed = program is None
        if fixed:
            program = _exported(plain, args, kwargs, None)
    sizes = {len(x) for x in (*args, *kwargs.values()) if isinstance(x, Tensor) and x.ndim}
    if fixed and sizes:
        warn(
            f"The model in {path} takes batches of {min(sizes)} and no others: its forward does "
            "not work for any batch size."
        )
    program.save(str(path))


def _for_any_batch(plain: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """Return what is exported with the first axis left open; None for a model that needs one."""
    inputs = [*args, *kwargs.values()]
    if not all(isinstance(x, Tensor) and x.ndim for x in inputs):
        return None
    if len({len(x) for x in inputs}) != 1:
        return None  # no one axis of all of them is the batch
    args, kwargs = tuple(map(_at_least_two, args)), {k: _at_least_two(x) for k, x in kwargs.items()}
    batch = {0: torch.export.Dim("batch")}
    shapes = dict.fromkeys(kwargs, batch) if kwargs else tuple(batch for _ in args)
    try:
        with torch.no_grad():
            plain(*args, **kwargs)
        program = _exported(plain, args, kwargs, shapes)
    except Exception:
        return None
    # Where the forward does not allow it, the exporter may do without, and not say so.
    return None if isinstance(program.model.graph.inputs[0].shape[0], int) else program


def _at_least_two(inputs: Tensor) -> Tensor:
    """Return two samples for one: an axis of length one is taken for one that always is."""
    return torch.cat([inputs, inputs]) if len(inputs) == 1 else inputs


def _exported(
    plain: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], dynamic_shapes: Any
) -> Any:
    try:
        program = torch.onnx.export(
            plain,
            args,
            kwargs=dict(kwargs),
            dynamo=True,
            verbose=False,
            dynamic_shapes=dynamic_shapes,
        )
    except Exception as error:
        said = next((line for line in str(error).splitlines() if line.strip()), "")
        raise ConfigError(
            f"torch.onnx.export does not export this {type(plain).__name__}: "
            f"{type(error).__name__}: {said}"
        ) from error
    if program is None:
        raise ConfigError("torch.onnx.export returned nothing for this model.")
    return program


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep to itself what the exporter says of its progress, and of torch's own code."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
