"""What speedup did to a model besides its numbers, and how to do it to another one.

A small model is a dense one with smaller tensors, other sizes in its attributes, and here and
there a correction (see `corrections`). The last two fit in a page of JSON, which travels in the
header of the file that holds the tensors. So a small model is loaded into a freshly built dense
one, and nothing in the file is code.
"""

from __future__ import annotations

import json
from collections.abc import Container, Mapping
from dataclasses import asdict, dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from prune_core.__about__ import __version__
from prune_core.errors import SpeedupError, did_you_mean
from prune_core.files import replacing
from prune_core.masking import wrappers_in
from prune_speedup.torch.record.call_sites import Number
from prune_speedup.torch.resize.corrections import Corrections, corrections_of
from prune_speedup.torch.tensors import put

__all__ = ["Surgery", "load_pruned", "plain_attributes", "record_surgery", "save_pruned"]

FORMAT, FORMAT_VERSION = "prune-model", "1"
MARK = "_prune_surgery"

Attributes = dict[str, dict[str, Any]]


@dataclass(slots=True)
class Surgery:
    """What to do to a dense model so that the small tensors fit.

    Attributes:
        attributes: `{module: {attribute: value}}`.
        corrections: `{module: [[function, occurrence, {position: number}], ...]}`.
        biases: Names of biases that the dense model lacks: a constant was folded into them.
    """

    attributes: Attributes = field(default_factory=dict)
    corrections: dict[str, list[list[Any]]] = field(default_factory=dict)
    biases: list[str] = field(default_factory=list)


def plain_attributes(model: nn.Module) -> Attributes:
    """Return the numbers that modules write down, by module and attribute."""
    return {
        name: {key: value for key, value in vars(module).items() if _is_plain(value)}
        for name, module in model.named_modules(remove_duplicate=False)
    }


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return bool(value) and all(isinstance(item, int) for item in value)
    return isinstance(value, int | float)


def record_surgery(model: nn.Module, before: Attributes, tensors: Container[str]) -> None:
    """Note on the model what has changed since `before`, and since any earlier surgery.

    Args:
        model: The small model.
        before: The numbers that its modules wrote down.
        tensors: The names of the tensors that it had.
    """
    surgery: Surgery = vars(model).get(MARK) or Surgery()
    surgery.biases += [name for name, _ in model.named_parameters() if name not in tensors]
    for name, attributes in plain_attributes(model).items():
        changed = {
            key: value
            for key, value in attributes.items()
            if before.get(name, {}).get(key) != value and key != "training"
        }
        if changed:
            surgery.attributes.setdefault(name, {}).update(changed)
    surgery.corrections = {
        name: [[function, at, dict(sizes)] for (function, at), sizes in found.sizes.items()]
        for name, module in model.named_modules()
        if (found := corrections_of(module)) is not None
    }
    model.__dict__[MARK] = surgery


def save_pruned(model: nn.Module, path: str | PathLike[str]) -> None:
    """Write a small model to a safetensors file, from which `load_pruned` brings it back.

    Args:
        model: A model that `shrink` has made smaller, trained since or not.
        path: The file; it appears whole or not at all.

    Raises:
        SpeedupError: The model is still wrapped.
    """
    from safetensors.torch import save

    wrapped = wrappers_in(model)
    if wrapped:
        raise SpeedupError(
            f"The model is wrapped ({next(iter(wrapped))!r} among others); take the masks out "
            "with prune_core.unwrap(model) before saving it."
        )
    if vars(model).get("_prune_graph"):
        raise SpeedupError(
            "This is a graph, which no freshly built model can become; write it with "
            "torch.export.save(torch.export.export(model, inputs), path)."
        )
    surgery: Surgery = vars(model).get(MARK) or Surgery()
    names, tensors = _untied(model)
    metadata = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "prune_core": __version__,
        "surgery": json.dumps(asdict(surgery)),
        "tied": json.dumps(names),
    }
    with replacing(path) as file:
        file.write(save(tensors, metadata))


def _untied(model: nn.Module) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Return each tensor once, and the first name of those that go by several."""
    first: dict[int, str] = {}
    tied: dict[str, str] = {}
    tensors: dict[str, Tensor] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        known = first.setdefault(id(tensor), name)
        if known == name:
            tensors[name] = tensor.detach().contiguous()
        else:
            tied[name] = known
    return tied, tensors


def load_pruned(model: nn.Module, path: str | PathLike[str]) -> nn.Module:
    """Make a freshly built dense model the small one that a file holds.

    Args:
        model: A dense model of the same class and configuration, changed in place. Its
            parameters stay the objects that they are.
        path: Written by `save_pruned`, or by `SpeedupReport.save`.

    Returns:
        `model`.

    Raises:
        SpeedupError: The file is missing, damaged, or of another model; the model is untouched.
    """
    surgery, tied, tensors = _read(Path(path))
    own = model.state_dict(keep_vars=True)
    names = {**dict.fromkeys(tensors), **dict.fromkeys(tied)}
    for name in names:
        if name not in own and name not in surgery.biases:
            raise SpeedupError(
                f"{path} has {name!r}, and the model has no such tensor.{did_you_mean(name, own)} "
                "Is it built like the one that was pruned?"
            )
    missing = [name for name in own if name not in names]
    if missing:
        raise SpeedupError(
            f"{path} lacks {missing[0]!r}, which the model has. Is it built like the one that was "
            "pruned?"
        )
    for name, tensor in tensors.items():
        if name in own and _grows(tensor, own[name]):
            raise SpeedupError(
                f"{name!r} is {tuple(tensor.shape)} in {path} and {tuple(own[name].shape)} in the "
                "model; pruning never makes a tensor larger. Is the model dense?"
            )
    modules = dict(model.named_modules(remove_duplicate=False))
    gaining = [name.rpartition(".")[0] for name in surgery.biases]
    for name in (*surgery.attributes, *surgery.corrections, *gaining):
        if name not in modules:
            raise SpeedupError(f"{path} changes {name!r}, and the model has no such module.")
    for name, layer in zip(surgery.biases, gaining, strict=True):
        if name not in tensors or f"{layer}.weight".lstrip(".") not in own:
            raise SpeedupError(f"{path} gives {layer!r} a bias, which that cannot have.")
    for name, tensor in tensors.items():
        if name in own:
            put(own[name], tensor.to(own[name].device), None)
    for name, layer in zip(surgery.biases, gaining, strict=True):
        device = modules[layer].get_parameter("weight").device
        modules[layer].register_parameter("bias", nn.Parameter(tensors[name].to(device)))
    for name, attributes in surgery.attributes.items():
        for key, value in attributes.items():
            old = modules[name].__dict__.get(key)
            modules[name].__dict__[key] = tuple(value) if isinstance(old, tuple) else value
    for name, corrections in surgery.corrections.items():
        Corrections(_sizes(corrections)).register(modules[name])
    model.__dict__[MARK] = surgery
    return model


def _grows(new: Tensor, old: Tensor) -> bool:
    return new.ndim != old.ndim or any(n > o for n, o in zip(new.shape, old.shape, strict=True))


def _sizes(corrections: list[list[Any]]) -> dict[tuple[str, int], dict[int, Number]]:
    return {
        (function, occurrence): {int(at): size for at, size in sizes.items()}
        for function, occurrence, sizes in corrections
    }


def _read(path: Path) -> tuple[Surgery, Mapping[str, str], Mapping[str, Tensor]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise SpeedupError(
                    f"{path} is a safetensors file, but not one that save_pruned wrote: its "
                    f"header does not say format {FORMAT!r}."
                )
            tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except OSError as error:
        raise SpeedupError(f"{path}: {error.strerror or error}.") from error
    except SafetensorError as error:
        raise SpeedupError(f"{path} is damaged or no safetensors file: {error}.") from error
    if metadata.get("format_version") != FORMAT_VERSION:
        raise SpeedupError(
            f"{path} has format version {metadata.get('format_version')}; this prune-core "
            f"{__version__} reads version {FORMAT_VERSION}. Upgrade prune-core."
        )
    surgery = Surgery(**json.loads(metadata["surgery"]))
    return (
        surgery,
        json.loads(metadata["tied"]),
        {n: t.to(torch.device("cpu")) for n, t in tensors.items()},
    )
