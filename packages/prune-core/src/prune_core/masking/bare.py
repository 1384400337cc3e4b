"""A model without the modules that only run it elsewhere, or faster.

`DataParallel`, `DistributedDataParallel`, `torch.compile` and their like put the model, or a part
of it, into a module of their own, and that module's child appears in every name: `conv` becomes
`module.conv`, `layer.conv` becomes `layer._orig_mod.conv`. It is the same layer. So names are read
where those modules are set aside for the moment (see `config.names` for those written down).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import torch
from torch import nn

from prune_core.compressed import model_of
from prune_core.errors import PruneError
from prune_core.traversal import modules_in

__all__ = ["bare", "check_model", "put_child"]

_CONTENT = {
    "DataParallel": "module",
    "DistributedDataParallel": "module",
    "AveragedModel": "module",
    "OptimizedModule": "_orig_mod",
    "CheckpointWrapper": "_checkpoint_wrapped_module",
    "OffloadWrapper": "_checkpoint_wrapped_module",
}
"""Where modules of these classes keep what they run; told by name, so that none is imported."""


def content(module: nn.Module) -> nn.Module | None:
    """Return what a module runs that computes nothing of its own; None for any other module."""
    kind: type = type(module)
    for child in _children_of(kind):
        if (inside := module._modules.get(child)) is not None:
            return inside
    return None


@lru_cache(maxsize=1024)
def _children_of(kind: type) -> tuple[str, ...]:
    """Where a class may keep what it runs: asked for every module of a model, again and again."""
    return tuple(_CONTENT[base.__name__] for base in kind.__mro__ if base.__name__ in _CONTENT)


def check_model(model: object, *, compiled: bool = True) -> None:
    """Refuse what is no model of torch, and, if asked, one whose forward cannot be changed."""
    if not isinstance(model, nn.Module):
        kind = f"{type(model).__module__}.{type(model).__name__}".removeprefix("builtins.")
        hint = ""
        if isinstance(model, type) and issubclass(model, nn.Module):
            hint = f" This is the class; make a model of it: {model.__name__}(...)."
        elif isinstance(model, tuple) and model and isinstance(model[0], nn.Module):
            hint = " Of what prune() or compress() returns, it is the first."
        elif isinstance(model, Mapping):
            hint = " A state dict holds the numbers of a model; load it into the model first."
        elif isinstance(getattr(model, "bound_model", None), nn.Module):
            hint = " Of a pruner, it is pruner.bound_model."
        elif callable(getattr(model, "module", None)):
            hint = " Of an exported program, it is what its module() returns."
        elif kind.startswith(("keras.", "tensorflow.")):
            hint = " For Keras there is prune_tf."
        raise PruneError(f"model is a {kind}; it must be a model of torch, an nn.Module.{hint}")
    if not compiled and isinstance(model, torch.jit.ScriptModule):
        raise PruneError(
            "The model was compiled by torch.jit.script or torch.jit.trace, and a compiled forward "
            "cannot be changed. Prune the model that it was compiled from, and compile the small "
            "one."
        )


@contextmanager
def bare(model: nn.Module) -> Iterator[nn.Module]:
    """Set aside, for a moment, what runs a model or parts of it, and yield the model itself.

    What is put in the place of a part meanwhile stays, and is run as that part was.

    Raises:
        PruneError: This is no model of torch.
    """
    model = model_of(model)
    check_model(model)
    root, _ = _opened(model)
    aside: list[tuple[nn.Module, str, list[nn.Module]]] = []
    modules = modules_in(root)
    kinds: set[type] = {type(module) for module in modules}
    for parent in modules if any(map(_children_of, kinds)) else ():  # most often there is none
        if content(parent) is not None:
            continue
        for key, child in parent._modules.items():
            inside, hulls = _opened(child) if child is not None else (None, [])
            if hulls:
                aside.append((parent, key, hulls))
                parent._modules[key] = inside
    try:
        yield root
    finally:
        for parent, key, hulls in aside:
            now = parent._modules.get(key)
            if now is not None:
                put_child(hulls[-1], _content_name(hulls[-1]), now)
                parent._modules[key] = hulls[0]


def _opened(module: nn.Module) -> tuple[nn.Module, list[nn.Module]]:
    hulls: list[nn.Module] = []
    while (inside := content(module)) is not None:
        hulls.append(module)
        module = inside
    return module, hulls


def _content_name(hull: nn.Module) -> str:
    inside = content(hull)
    return next(name for name, child in hull._modules.items() if child is inside)


def put_child(parent: nn.Module, key: str, child: nn.Module) -> None:
    """Put a module in the place of another."""
    if parent._modules[key] is child:
        return
    parent._modules[key] = child
    if key == "_orig_mod":
        # torch.compile remembers the function that it compiled, not where it found it.
        begin: Any = getattr(parent, "_initialize", None)
        if callable(begin):
            begin()
