"""Models built from a config again: for their shapes, or to be run with the tensors of another."""

import copy
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.func import functional_call
from torch.nn.modules.module import register_module_parameter_registration_hook

from prune_speedup.torch.model_config.layer_configs import by_layer, layer_classes
from prune_speedup.torch.model_config.numbers import Values, put_values
from prune_speedup.torch.proof.compare import compare
from prune_speedup.torch.record.inputs import arguments

__all__ = [
    "Build",
    "Shapes",
    "as_read",
    "builder",
    "built_like",
    "run_as",
    "run_built",
    "same_outputs",
    "shapes_of",
    "without_numbers",
]

Shapes = Mapping[str, tuple[int, ...]]
Build = Callable[[Any], nn.Module]
"""Makes a model from a config, without numbers in its parameters."""


def shapes_of(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Return the shapes of what a model would save."""
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def built_like(model: nn.Module, values: Values) -> nn.Module:
    """Return a model of the same kind, from a changed config, its parameters without numbers."""
    changed: Any = copy.deepcopy(model.config)
    put_values(changed, values)
    return builder(model)(as_read(changed))


def as_read(config: Any) -> Any:
    """Return a config as it will be read from a file: some sizes are looked at only then.

    How attention and experts are computed is in no file, but what is built is to be compared with a
    model that computes them so; in half precision another way rounds visibly otherwise.
    """
    read = type(config).from_dict(copy.deepcopy(config).to_dict())
    _compute_alike(read, config)
    return read


def _compute_alike(read: Any, config: Any) -> None:
    for name in ("_attn_implementation", "_experts_implementation"):
        if (way := getattr(config, name, None)) is not None:
            setattr(read, name, way)
    for name in getattr(config, "sub_configs", ()):
        part, its = getattr(config, name, None), getattr(read, name, None)
        if part is not None and its is not None:
            _compute_alike(its, part)


def builder(model: nn.Module) -> Build:
    """Return what builds models of the same kind from other configs."""

    def build(config: Any) -> nn.Module:
        with by_layer(layer_classes(model, config)):
            return _build(type(model), config)

    return build


def _build(kind: Any, config: Any) -> nn.Module:
    with without_numbers():
        made: nn.Module = kind(config)
        return made


@contextmanager
def without_numbers() -> Iterator[None]:
    """Give the parameters of models that are built meanwhile no room for numbers."""

    def empty(module: nn.Module, name: str, parameter: nn.Parameter) -> nn.Parameter | None:
        if parameter.is_meta:
            return None  # it is tied to another, and stays the same
        return nn.Parameter(parameter.to("meta"), requires_grad=parameter.requires_grad)

    hook: Any = empty
    handle = register_module_parameter_registration_hook(hook)
    try:
        with torch.random.fork_rng(devices=[]), _without_first_numbers():
            yield
    finally:
        handle.remove()


def _without_first_numbers() -> AbstractContextManager[None]:
    """Spare a model of transformers drawing numbers for parameters that have room for none."""
    library = sys.modules.get("transformers.initialization")
    spare: Any = getattr(library, "no_init_weights", nullcontext)
    made: AbstractContextManager[None] = spare()
    return made


def run_as(module: nn.Module, args: Any, kwargs: Mapping[str, Any], *, of: nn.Module) -> Any:
    """What a module returns with the tensors of another; None if it fails."""
    module.eval()
    device = next((parameter.device for parameter in of.parameters()), torch.device("cpu"))
    theirs = dict(of.named_buffers(remove_duplicate=False))
    for path, holder in module.named_modules():
        for name, buffer in holder._buffers.items():
            if buffer is not None:
                like = theirs.get(f"{path}.{name}".lstrip("."))
                holder._buffers[name] = _rounded(buffer.to(device), like)
    try:
        return functional_call(module, of.state_dict(keep_vars=True), args, dict(kwargs))
    except Exception:
        return None


def _rounded(buffer: torch.Tensor, like: torch.Tensor | None) -> torch.Tensor:
    """Round a buffer as `model.bfloat16()` has rounded that of the other model.

    The frequencies of rotary positions are such, which are in no file.
    """
    if like is None or not (buffer.is_floating_point() and like.is_floating_point()):
        return buffer
    return buffer.to(like.dtype)


def run_built(module: nn.Module, example_inputs: Any, *, of: nn.Module) -> Any:
    """Return what a built module returns with the tensors of another one; None if it fails."""
    args, kwargs = arguments(example_inputs)
    return run_as(module, args, kwargs, of=of)


def same_outputs(expected: Any, found: Any) -> bool:
    """Return whether two runs of the same arithmetic agree.

    What rounding may do to different arithmetic would hide a wrong number of heads in a model
    that is hardly trained.
    """
    difference = compare(expected, found)
    return difference.relative <= difference.tolerance / 20
