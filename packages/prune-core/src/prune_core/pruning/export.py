"""A wrapped model, written to files as if it had never been wrapped."""

from __future__ import annotations

import copy
import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from os import PathLike
from typing import Any
from warnings import warn

import torch
from torch import Tensor, nn

from prune_core.errors import ConfigError, MissingDependencyError, PruneWarning
from prune_core.files import replacing, write_safetensors
from prune_core.masking import PrunerModuleWrapper, bare, unwrap

__all__ = ["apart", "export_model", "export_onnx", "masked_state_dict"]


def masked_state_dict(model: nn.Module) -> dict[str, Tensor]:
    """Return the state dict of the plain model, with zeros where masks are in force.

    It has no masks and no dense weights, and no `module.` or `_orig_mod.` in its names.

    Args:
        model: The model, wrapped or not.
    """
    with bare(model) as inside:
        state: dict[str, Tensor] = inside.state_dict()
        for path, wrapper in _plain_paths(inside, ""):
            for key in wrapper.saved_besides():
                state.pop(path + key, None)
    return state


def _plain_paths(module: nn.Module, prefix: str) -> Iterator[tuple[str, PrunerModuleWrapper]]:
    """Yield the wrappers, and how the keys of a state dict begin that are of each."""
    if isinstance(module, PrunerModuleWrapper):
        yield prefix, module
        yield from _plain_paths(module.module, prefix)
        return
    for name, child in module._modules.items():
        if child is not None:
            yield from _plain_paths(child, f"{prefix}{name}.")


def export_model(
    model: nn.Module,
    model_path: str | PathLike[str],
    onnx_path: str | PathLike[str] | None = None,
    input_shape: Sequence[int] | None = None,
    device: torch.device | str | None = None,
) -> None:
    """Write the masked state dict, and the model as ONNX if asked."""
    if onnx_path is not None and not _is_shape(input_shape):
        raise ConfigError(
            f"input_shape is {input_shape!r}; onnx_path needs the sizes of an input, such as "
            "input_shape=[1, 3, 224, 224]."
        )
    if onnx_path is not None and input_shape is not None:
        _export_zeros(model, onnx_path, input_shape, device)  # first, since it may be refused
    state = masked_state_dict(model)
    if str(model_path).endswith(".safetensors"):
        write_safetensors(model_path, apart(state))
    else:
        with replacing(model_path) as file:
            torch.save(state, file)


def _is_shape(value: object) -> bool:
    return isinstance(value, Sequence) and all(isinstance(n, int) and n > 0 for n in value)


def apart(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give each tensor memory of its own, as safetensors wants it, where parameters are tied."""
    seen: set[int] = set()
    copies = {}
    for name, tensor in state.items():
        if type(tensor).__module__.partition(".")[0] == "torchao":
            raise ConfigError(
                f"{name!r} is quantised (a {type(tensor).__name__}), which safetensors does not "
                "hold. Write a .pth or a .pt2 file."
            )
        memory = tensor.untyped_storage().data_ptr()
        copies[name] = tensor.clone() if memory in seen else tensor
        seen.add(memory)
    return {name: tensor.contiguous() for name, tensor in copies.items()}


def _export_zeros(
    model: nn.Module,
    path: str | PathLike[str],
    input_shape: Sequence[int],
    device: torch.device | str | None,
) -> None:
    """Write ONNX, traced with zeros of a shape."""
    with bare(model) as inside:
        plain = unwrap(copy.deepcopy(inside)).eval()
    where = device or next((p.device for p in plain.parameters()), torch.device("cpu"))
    plain.to(where)
    inputs = torch.zeros(*input_shape, device=where)
    try:
        with torch.no_grad():
            plain(inputs)
    except Exception as error:
        raise ConfigError(
            f"The model does not run on zeros of the shape {list(input_shape)}, input_shape: "
            f"{type(error).__name__}: {error}. Another kind of input needs torch.onnx.export "
            "itself, on a model without wrappers."
        ) from error
    export_onnx(plain, path, (inputs,), {})


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
            "ONNX export needs onnx and onnxscript: `pip install 'prune-core[onnx]'`."
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
            "not work for any batch size.",
            PruneWarning,
            stacklevel=4,
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
