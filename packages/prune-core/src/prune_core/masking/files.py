"""Masks of torch modules, to and from files."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from prune_core.config.names import by_known_names
from prune_core.errors import MaskError, MaskFileError, did_you_mean
from prune_core.maskfile import MaskFile, as_path, read_mask_file, write_mask_file
from prune_core.masking.bare import bare
from prune_core.masking.wrapper import Masks, PrunerModuleWrapper

__all__ = ["apply_compression_results", "check_masks", "load_masks", "save_masks"]

TORCH_MAGIC = (b"PK", b"\x80")


def save_masks(
    path: str | PathLike[str],
    masks: Mapping[str, Mapping[str, Tensor]],
    *,
    algorithm: str = "",
    config: Mapping[str, Any] | None = None,
) -> None:
    """Write masks to a safetensors file, whatever its name ends with.

    Args:
        path: The file.
        masks: `{module name: {tensor name: mask}}`.
        algorithm: What made them, for the header.
        config: The settings that led to them, for the header.
    """
    arrays = {
        module: {n: m.to("cpu", torch.bool).contiguous().numpy() for n, m in tensors.items()}
        for module, tensors in masks.items()
    }
    write_mask_file(path, MaskFile(arrays, algorithm=algorithm, config=dict(config or {})))


def load_masks(path: str | PathLike[str]) -> Masks:
    """Read masks from a file of ours, or from a `.pth` file of an older tool.

    The latter is read with `weights_only=True`, so that no file can run code.

    Args:
        path: The file.

    Raises:
        MaskFileError: When the file is missing, damaged, or holds something else.
    """
    path = as_path(path)
    try:
        with path.open("rb") as file:
            start = file.read(9)
    except OSError as error:
        raise MaskFileError(f"{path}: {error.strerror or error}.") from error
    # A safetensors file starts with the length of its header, which can be any eight bytes.
    if start[8:] != b"{" and start.startswith(TORCH_MAGIC):
        return _load_pth(path)
    return {
        module: {name: torch.from_numpy(mask) for name, mask in tensors.items()}
        for module, tensors in read_mask_file(path).masks.items()
    }


def _load_pth(path: Path) -> Masks:
    try:
        # The file's name shall not decide how it is read. Newer torches warn of sparse tensors, of
        # which nothing is kept.
        with path.open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            content = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise MaskFileError(
            f"{path} holds more than tensors and cannot be loaded safely: {error}"
        ) from error
    except Exception as error:
        # On bytes that are no pickle the reader stumbles in as many ways as there are bytes.
        cause = " ".join(f"{type(error).__name__} {error}".split())
        raise MaskFileError(f"{path} is damaged: {cause}.") from error
    if not (
        isinstance(content, dict)
        and content
        and all(isinstance(name, str) for name in content)
        and all(isinstance(tensors, dict) for tensors in content.values())
        and all(_is_item(*item) for tensors in content.values() for item in tensors.items())
    ):
        raise MaskFileError(
            f"{path} does not hold masks, {{module name: {{tensor name: mask}}}}. Was the model's "
            "own file given?"
        )
    return {
        module: {
            name: _binary(f"{path}: {module}.{name}", mask)
            for name, mask in tensors.items()
            if mask is not None
        }
        for module, tensors in content.items()
    }


def _is_item(name: object, mask: object) -> bool:
    if not isinstance(name, str):
        return False
    return mask is None or (
        isinstance(mask, Tensor)
        and mask.layout == torch.strided
        and not (mask.is_meta or mask.is_quantized or mask.is_complex())
    )


def _binary(what: str, mask: Tensor) -> Tensor:
    # A damaged boolean is a byte that is neither 0 nor 1, and masks multiply as bytes.
    values = mask.view(torch.uint8) if mask.dtype == torch.bool else mask
    wrong = values[(values != 0) & (values != 1)]
    if wrong.numel():
        raise MaskFileError(f"{what} holds {wrong[0].item()}; a mask holds 0 (pruned) and 1.")
    return mask


def check_masks(model: nn.Module, masks: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Refuse masks that do not fit a model.

    Args:
        model: The model, wrapped or not.
        masks: `{module name: {tensor name: mask}}`.

    Raises:
        MaskError: Naming the module, the tensor and what is there instead.
    """
    with bare(model) as plain:
        modules = dict(plain.named_modules(remove_duplicate=False))
    for name, tensors in by_known_names(masks, modules).items():
        if name not in modules:
            raise MaskError(
                f"The masks have {name!r}, and the model has no module of that name."
                f"{did_you_mean(name, modules)}"
            )
        for tensor, mask in tensors.items():
            parameter = getattr(modules[name], tensor, None)
            if not isinstance(parameter, nn.Parameter):
                raise MaskError(
                    f"The masks have {name}.{tensor}, a parameter which this "
                    f"{type(modules[name]).__name__} does not have."
                )
            if mask.shape != parameter.shape:
                raise MaskError(
                    f"The mask of {name}.{tensor} has the shape {tuple(mask.shape)}; the tensor "
                    f"has {tuple(parameter.shape)}. Were the masks made for another model?"
                )


def apply_compression_results(
    model: nn.Module, mask_file: str | PathLike[str], map_location: Any = None
) -> None:
    """Write the zeros of a mask file into the parameters of a plain model.

    The model keeps its size; `prune_core.speedup` makes it smaller.

    Args:
        model: A model that is not wrapped, changed in place.
        mask_file: Written by `export_model` or `save_masks`, or by an older tool.
        map_location: Older scripts give it; masks go where the parameters are.

    Raises:
        MaskFileError: When the file is missing, damaged, or holds something else.
        MaskError: When the masks do not fit the model, or the model is wrapped.
    """
    for module in model.modules():
        if isinstance(module, PrunerModuleWrapper):
            raise MaskError(
                f"The model is wrapped ({module.name!r} among others), and zeros are written into "
                "plain parameters. Give the masks to the pruner, `pruner.load_masks(file)`, or "
                "unwrap the model first, `prune_core.unwrap(model)`."
            )
    masks = load_masks(mask_file)
    check_masks(model, masks)
    with bare(model) as plain:
        modules = dict(plain.named_modules(remove_duplicate=False))
    for name, parameter in model.named_parameters():
        if parameter.is_meta:
            raise MaskError(
                f"{name} is on the meta device, where no zeros can be written into it. Load the "
                "weights first."
            )
    # All that is computed is computed before the first value is written, and what is written can
    # be taken back: a tensor may share its memory in a way that torch refuses to write to.
    zeros = [
        (getattr(modules[name], tensor), mask)
        for name, tensors in by_known_names(masks, modules).items()
        for tensor, mask in tensors.items()
    ]
    before: list[tuple[Tensor, Tensor]] = []
    with torch.no_grad():
        try:
            for parameter, mask in zeros:
                before.append((parameter, parameter.clone()))
                parameter.masked_fill_(mask.to(parameter.device) == 0, 0.0)
        except Exception as error:
            before.pop()
            for written, values in before:
                written.copy_(values)
            raise MaskError(f"No zeros can be written into a parameter: {error}") from error
