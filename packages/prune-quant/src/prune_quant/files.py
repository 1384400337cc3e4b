"""A quantised model, written to files."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from prune_core.errors import ConfigError
from prune_core.files import replacing, write_safetensors
from prune_core.masking import bare, replace_modules, unwrap
from prune_core.pruning.export import apart
from prune_export.onnx import export_onnx
from prune_quant.integer import integer_model
from prune_quant.wrapper import QuantizerModuleWrapper

if TYPE_CHECKING:
    from prune_quant.quantizer import Quantizer

__all__ = ["calibration_of", "export_model", "rounded_model"]


def calibration_of(wrapper: QuantizerModuleWrapper) -> dict[str, Any]:
    """Return what rounds a module, under the names that NNI gives it."""
    found: dict[str, Any] = {}
    for kind, quantizer in wrapper.quantizers.items():
        found[f"{kind}_bits"] = quantizer.bits
        found[f"{kind}_scale"] = quantizer.scale.detach().clone()
        found[f"{kind}_zero_point"] = quantizer.zero_point.detach().clone()
        if kind != "weight":
            low, high = quantizer.range
            found[f"tracked_min_{kind}"], found[f"tracked_max_{kind}"] = float(low), float(high)
    return found


def rounded_model(model: nn.Module) -> nn.Module:
    """Return a copy without wrappers that holds the rounded weights; inputs are not rounded."""
    plain = _with_rounded_weights(model)
    wrappers = [m for m in plain.modules() if isinstance(m, QuantizerModuleWrapper)]
    replace_modules(plain, {wrapper: wrapper.module for wrapper in wrappers})
    return unwrap(plain)


@torch.no_grad()
def _with_rounded_weights(model: nn.Module) -> nn.Module:
    """Return a copy whose parameters are what the forward sees, so that none is rounded again."""
    with bare(model) as inside:
        made = copy.deepcopy(inside)
    for wrapper in made.modules():
        if isinstance(wrapper, QuantizerModuleWrapper) and "weight" in wrapper.quantizers:
            seen = wrapper.seen_by_forward()[wrapper.weight_key]
            wrapper.plain_module.get_parameter(wrapper.weight_key).copy_(seen)
            wrapper.weight_quantizer = None
    return made


def export_model(
    quantizer: Quantizer,
    model_path: str | PathLike[str],
    calibration_path: str | PathLike[str] | None,
    onnx_path: str | PathLike[str] | None,
    input_shape: Sequence[int] | None,
    device: torch.device | str | None,
) -> None:
    """Write what `Quantizer.export_model` says, ONNX first, since that may be refused."""
    if onnx_path is not None:
        _onnx(quantizer, onnx_path, input_shape, device)
    state = rounded_model(quantizer.bound_model).state_dict()
    if str(model_path).endswith(".safetensors"):
        write_safetensors(model_path, apart(state))
    else:
        with replacing(model_path) as file:
            torch.save(state, file)
    if calibration_path is not None:
        with replacing(calibration_path) as file:
            torch.save(quantizer.calibration_config, file)


def _onnx(
    quantizer: Quantizer,
    path: str | PathLike[str],
    input_shape: Sequence[int] | None,
    device: torch.device | str | None,
) -> None:
    if not isinstance(input_shape, list | tuple) or not all(
        isinstance(size, int) and size > 0 for size in input_shape
    ):
        raise ConfigError(
            f"input_shape is {input_shape!r}; onnx_path needs the sizes of an input, such as "
            "input_shape=[1, 3, 224, 224]."
        )
    if quantizer.integers and all(
        q.bits <= 8 for w in quantizer.get_modules_wrapper().values() for q in w.quantizers.values()
    ):
        model = integer_model(quantizer.bound_model, None, 0.0)
    else:  # the same numbers, rounded by operators on floating point
        model = _with_rounded_weights(quantizer.bound_model).eval().requires_grad_(False)
    where = device or next((p.device for p in model.parameters()), torch.device("cpu"))
    inputs: Tensor = torch.zeros(*input_shape, device=where)
    try:
        with torch.no_grad():
            model.to(where)(inputs)
    except Exception as error:
        raise ConfigError(
            f"The model does not run on zeros of the shape {list(input_shape)}, input_shape: "
            f"{type(error).__name__}: {error}."
        ) from error
    export_onnx(model, path, (inputs,), {})
