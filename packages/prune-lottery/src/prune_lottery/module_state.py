"""Save and restore the state of a module, bit for bit.

`state_dict()` leaves out what a rewind must not forget: buffers that are not persistent, which
modules are in training mode, and which parameters are frozen. And its names change when a module
is wrapped; those used here do not.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from prune_core.errors import PruneError
from prune_core.masking import PrunerModuleWrapper

__all__ = ["plain_modules", "put_module", "take_module"]


def plain_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield every module but the wrappers, by the name that it has when nothing is wrapped."""
    seen: set[nn.Module] = set()

    def walk(module: nn.Module, name: str) -> Iterator[tuple[str, nn.Module]]:
        if isinstance(module, PrunerModuleWrapper):
            module = module.module
        if module in seen:
            return
        seen.add(module)
        yield name, module
        for key, child in module._modules.items():
            if child is not None:
                yield from walk(child, f"{name}.{key}" if name else key)

    return walk(model, "")


def _slots(model: nn.Module) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Yield the name of each parameter and buffer, and where it is kept."""
    for prefix, module in plain_modules(model):
        for holder in (module._parameters, module._buffers):
            for key in holder:
                yield f"{prefix}.{key}" if prefix else key, holder, key


def take_module(model: nn.Module) -> dict[str, Any]:
    """Copy everything that training can change in a module, except for masks."""
    values = {name: holder[key] for name, holder, key in _slots(model)}
    modules = dict(plain_modules(model))
    return {
        "tensors": {n: None if t is None else t.detach().clone() for n, t in values.items()},
        "trained": {n: t.requires_grad for n, t in values.items() if isinstance(t, nn.Parameter)},
        "training": {name: module.training for name, module in modules.items()},
        "extra": {
            name: copy.deepcopy(module.get_extra_state())
            for name, module in modules.items()
            if type(module).get_extra_state is not nn.Module.get_extra_state
        },
    }


@torch.no_grad()
def put_module(model: nn.Module, state: dict[str, Any]) -> None:
    """Put back what `take_module` took. Parameters stay the objects that they are.

    Raises:
        PruneError: When the module has other parameters or buffers now; nothing is changed then.
    """
    slots = {name: (holder, key) for name, holder, key in _slots(model)}
    _check(slots, state["tensors"])
    for name, stored in state["tensors"].items():
        holder, key = slots[name]
        now = holder[key]
        if stored is None or now is None or not _alike(now, stored):
            device = stored.device if now is None and stored is not None else None
            device = now.device if now is not None else device
            holder[key] = None if stored is None else stored.to(device, copy=True)
        else:
            now.copy_(stored)
        if isinstance(now, nn.Parameter):
            now.grad = None
            now.requires_grad_(state["trained"][name])
    modules = dict(plain_modules(model))
    for name, mode in state["training"].items():
        modules[name].training = mode
    for wrapper in model.modules():
        if isinstance(wrapper, PrunerModuleWrapper):
            wrapper.training = wrapper.module.training
    for name, extra in state["extra"].items():
        modules[name].set_extra_state(copy.deepcopy(extra))


def _alike(now: Tensor, stored: Tensor) -> bool:
    return now.shape == stored.shape and now.dtype == stored.dtype


def _check(slots: dict[str, tuple[dict[str, Any], str]], stored: dict[str, Tensor | None]) -> None:
    if slots.keys() != stored.keys():
        name = min(slots.keys() ^ stored.keys())
        when = ("has", "had not") if name in slots else ("has not", "had")
        raise PruneError(
            f"The model {when[0]} {name!r}, which it {when[1]} when its state was taken; a rewind "
            "needs the parameters and buffers to stay the same. Change the model before the "
            "lottery is made."
        )
    for name, (holder, key) in slots.items():
        now, then = holder[key], stored[name]
        if isinstance(now, nn.Parameter) and (then is None or not _alike(now, then)):
            was = "nothing" if then is None else f"{tuple(then.shape)}, {then.dtype}"
            raise PruneError(
                f"The parameter {name!r} is {tuple(now.shape)}, {now.dtype}, and was {was} when "
                "its state was taken; a rewind cannot put that back. Change the model before the "
                "lottery is made."
            )
