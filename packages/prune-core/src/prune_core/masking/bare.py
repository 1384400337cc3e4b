"""A model without the modules that only run it elsewhere, or faster.

`DataParallel`, `DistributedDataParallel`, `torch.compile` and their like put the model, or a part
of it, into a module of their own, and that module's child appears in every name: `conv` becomes
`module.conv`, `layer.conv` becomes `layer._orig_mod.conv`. It is the same layer. So names are read
where those modules are set aside for the moment (see `config.names` for those written down).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

__all__ = ["bare", "put_child"]

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
    for base in type(module).__mro__:
        child = _CONTENT.get(base.__name__)
        if child is not None and (inside := module._modules.get(child)) is not None:
            return inside
    return None


@contextmanager
def bare(model: nn.Module) -> Iterator[nn.Module]:
    """Set aside, for a moment, what runs a model or parts of it, and yield the model itself.

    What is put in the place of a part meanwhile stays, and is run as that part was.
    """
    root, _ = _opened(model)
    aside: list[tuple[nn.Module, str, list[nn.Module]]] = []
    for parent in list(root.modules()):
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
    # torch.compile remembers the function that it compiled, not where it found it.
    begin: Any = getattr(parent, "_initialize", None)
    if key == "_orig_mod" and callable(begin):
        begin()
