"""The model and its inputs, from what a recipe says of them."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from prune_core.errors import ConfigError, MissingDependencyError, did_you_mean
from prune_recipes.code import made
from prune_recipes.recipe import Inputs, Model, Recipe, TensorSpec

__all__ = ["load_huggingface", "load_inputs", "load_model", "load_tensors", "on_device"]


def load_model(recipe: Recipe, folder: Path) -> nn.Module:
    """Make the dense model of a recipe, in eval mode and on its device.

    Args:
        recipe: The recipe.
        folder: Where its file is; paths in it are relative to this.
    """
    said = recipe.model
    if said.call is not None:
        model = made(said.call, said.arguments, "model")
    elif said.huggingface is not None:
        model = load_huggingface(folder / said.huggingface, said.class_)
    else:
        model = _from_file(said, folder)
    if not isinstance(model, nn.Module):
        name = type(model).__name__
        keras = any(base.__module__.partition(".")[0] == "keras" for base in type(model).__mro__)
        raise ConfigError(
            f"model: {said.call or said.file} made a {name}, and recipes prune torch models."
            + (" prune_tf prunes Keras models, in Python." if keras else "")
        )
    if said.weights is not None:
        _load_weights(model, folder / said.weights)
    return model.to(recipe.device).eval()


def load_huggingface(path: Path, class_: str) -> Any:
    """Read a folder of transformers; nothing is downloaded, and no code in it runs."""
    try:
        import transformers
    except ModuleNotFoundError:
        raise MissingDependencyError(
            "model.huggingface needs transformers: `pip install transformers`."
        ) from None
    if not (path / "config.json").is_file():
        raise ConfigError(
            f"model.huggingface: {path} holds no config.json. It must be a folder that "
            "save_pretrained wrote; nothing is downloaded."
        )
    reader: Any = getattr(transformers, class_, None)
    if not hasattr(reader, "from_pretrained"):
        known = [name for name in dir(transformers) if name.startswith("AutoModel")]
        raise ConfigError(
            f"model.class: transformers has no {class_!r}.{did_you_mean(class_, known)}"
        )
    try:
        return reader.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, RuntimeError) as error:
        raise ConfigError(f"model.huggingface: {path}: {' '.join(str(error).split())}") from error


def _from_file(said: Model, folder: Path) -> Any:
    path = _there(folder / str(said.file), "model.file")
    if path.suffix == ".pt2":
        try:
            return torch.export.load(path).module()
        except Exception as error:
            raise ConfigError(f"model.file: {path}: {type(error).__name__}: {error}") from error
    if not said.pickle:
        raise ConfigError(
            f"model.file: {path} is no .pt2. A model that torch.save wrote whole is a pickle, "
            "which runs code when it is read: say pickle: true beside it if you trust it. A state "
            "dict goes into model.weights, beside the call that makes the model."
        )
    try:
        return torch.load(path, map_location="cpu", weights_only=False)
    except Exception as error:
        raise ConfigError(f"model.file: {path}: {type(error).__name__}: {error}") from error


def _load_weights(model: nn.Module, path: Path) -> None:
    tensors = load_tensors(path, "model.weights")
    state = tensors.get("state_dict", tensors) if isinstance(tensors, dict) else tensors
    if not (isinstance(state, dict) and all(isinstance(each, Tensor) for each in state.values())):
        raise ConfigError(f"model.weights: {path} holds no state dict, names and tensors.")
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise ConfigError(f"model.weights: {path} is of another model: {error}") from None


def load_tensors(path: Path, used_for: str) -> Any:
    """Read tensors from a file that can hold no code."""
    _there(path, used_for)
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        if path.suffix == ".npy":
            import numpy as np

            return torch.from_numpy(np.load(path, allow_pickle=False))
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ConfigError(
            f"{used_for}: {path} cannot be read: {' '.join(str(error).split())[:200]}"
        ) from error


def _there(path: Path, used_for: str) -> Path:
    if not path.is_file():
        raise ConfigError(f"{used_for}: {path} is not there.")
    return path


def load_inputs(recipe: Recipe, folder: Path) -> Any:
    """Make the example inputs of a recipe, on its device."""
    said = recipe.inputs
    if said.call is not None:
        inputs = made(said.call, said.arguments, "inputs")
    elif said.file is not None:
        inputs = load_tensors(folder / said.file, "inputs.file")
    else:
        inputs = _drawn(said)
    return on_device(inputs, recipe.device)


def _drawn(said: Inputs) -> Any:
    if said.tensors is not None:
        return {name: _random(spec) for name, spec in said.tensors.items()}
    return _random(TensorSpec(shape=said.shape or [], dtype=said.dtype, below=said.below))


def _random(spec: TensorSpec) -> Tensor:
    dtype = getattr(torch, spec.dtype)
    if dtype.is_floating_point:
        return torch.randn(spec.shape).to(dtype)
    return torch.randint(spec.below, spec.shape).to(dtype)


def on_device(inputs: Any, device: str) -> Any:
    """Return inputs with their tensors on a device."""
    if isinstance(inputs, Tensor):
        return inputs.to(device)
    if isinstance(inputs, dict):
        return {name: on_device(each, device) for name, each in inputs.items()}
    if type(inputs) in (list, tuple):
        return type(inputs)(on_device(each, device) for each in inputs)
    return copy.copy(inputs).to(device) if hasattr(inputs, "to") else inputs
