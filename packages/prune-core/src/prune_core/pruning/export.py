"""A wrapped model, written to files as if it had never been wrapped."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path

import torch
from torch import Tensor, nn

from prune_core.errors import ConfigError
from prune_core.files import replacing, write_safetensors
from prune_core.masking import PrunerModuleWrapper, bare, unwrap
from prune_core.masking.plain_names import saved_besides
from prune_core.registry import get_entry

__all__ = ["apart", "export_model", "masked_state_dict"]


def masked_state_dict(model: nn.Module) -> dict[str, Tensor]:
    """Return the state dict of the plain model, with zeros where masks are in force.

    It has no masks and no dense weights, and no `module.` or `_orig_mod.` in its names.

    Args:
        model: The model, wrapped or not.
    """
    with bare(model) as inside:
        state: dict[str, Tensor] = inside.state_dict()
        for path, wrapper in _plain_paths(inside, ""):
            for key in saved_besides(wrapper):
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
    get_entry("exporter", "onnx").load()(plain, Path(path), inputs)
