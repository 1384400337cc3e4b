"""What is in a model, by name: what torch's own walks give, in a part of their time.

torch asks each module for those in it, through a generator for every level above, and a call of
`prune` and `shrink` walks over the model dozens of times. Here one function goes through the
dictionaries. A class that has a walk of its own, such as one that hides what wraps a layer, is
asked as ever.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from torch import Tensor, nn

__all__ = ["modules_in", "named_modules", "named_parameters", "named_tensors"]


def named_modules(model: nn.Module, *, every_name: bool = False) -> list[tuple[str, nn.Module]]:
    """Return the modules of a model with their names, itself first.

    Args:
        model: The model.
        every_name: Whether a module that stands in several places is listed in each.
    """
    found = [("", model)]
    seen = {model}
    _add_named(model, "", found, seen, every_name)
    if _have_own_modules(seen):
        return list(model.named_modules(remove_duplicate=not every_name))
    return found


# No functions within functions: one that calls itself is a cycle, which keeps what it has found
# until Python looks for such.
def _add_named(
    module: nn.Module,
    start: str,
    found: list[tuple[str, nn.Module]],
    seen: set[nn.Module],
    every_name: bool,
) -> None:
    for key, child in module._modules.items():
        if child is None or (child in seen and not every_name):
            continue
        seen.add(child)
        name = start + key
        found.append((name, child))
        if child._modules:
            _add_named(child, f"{name}.", found, seen, every_name)


def modules_in(model: nn.Module) -> list[nn.Module]:
    """Return the modules of a model, itself first, each once."""
    found: dict[nn.Module, None] = {model: None}
    _add(model, found)
    return list(model.modules()) if _have_own_modules(found) else list(found)


def _add(module: nn.Module, found: dict[nn.Module, None]) -> None:
    for child in module._modules.values():
        if child is not None and child not in found:
            found[child] = None
            if child._modules:
                _add(child, found)


def named_parameters(model: nn.Module, *, every_name: bool = False) -> dict[str, nn.Parameter]:
    """Return the parameters of a model by name.

    Args:
        model: The model.
        every_name: Whether one that is held in several places is there by each of its names.
    """
    kind: Any = type(model)
    if _has_own_tensors(kind):
        return dict(model.named_parameters(remove_duplicate=not every_name))
    modules = named_modules(model, every_name=every_name)
    return _held([(name, each._parameters) for name, each in modules], every_name)


def named_tensors(model: nn.Module, *, every_name: bool = False) -> dict[str, Tensor]:
    """Return the parameters of a model by name, and after them its buffers.

    Args:
        model: The model.
        every_name: Whether one that is held in several places is there by each of its names.
    """
    kind: Any = type(model)
    if _has_own_tensors(kind):
        once = not every_name
        buffers = model.named_buffers(remove_duplicate=once)
        return dict([*model.named_parameters(remove_duplicate=once), *buffers])
    modules = named_modules(model, every_name=every_name)
    parameters = _held([(name, each._parameters) for name, each in modules], every_name)
    return parameters | _held([(name, each._buffers) for name, each in modules], every_name)


def _held(members: Sequence[tuple[str, Mapping[str, Any]]], every_name: bool) -> dict[str, Any]:
    """Return what modules hold, `[(module name, {name: tensor})]`, by its whole name."""
    found = {
        f"{module}.{name}" if module else name: tensor
        for module, own in members
        if own
        for name, tensor in own.items()
        if tensor is not None
    }
    if every_name:
        return found
    once: dict[int, str] = {}
    for name, tensor in found.items():
        once.setdefault(id(tensor), name)
    return found if len(once) == len(found) else {name: found[name] for name in once.values()}


def _have_own_modules(modules: Iterable[nn.Module]) -> bool:
    """Whether any of them says itself which modules are in it."""
    return any(map(_has_own_modules, set(map(type, modules))))


@lru_cache(maxsize=1024)
def _has_own_modules(kind: Any) -> bool:
    return _is_own(kind, "named_modules")


@lru_cache(maxsize=1024)
def _has_own_tensors(kind: Any) -> bool:
    """Whether a class says itself which parameters and buffers it holds."""
    return any(_is_own(kind, n) for n in ("_named_members", "named_parameters", "named_buffers"))


def _is_own(kind: Any, walk: str) -> bool:
    return getattr(kind, walk) is not getattr(nn.Module, walk)
