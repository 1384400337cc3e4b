"""What a wrapped module is called in a state dict: the same as without a wrapper.

`weight` is the masked weight, so whoever reads it into a plain model gets what the wrapped one
computes with. Where something is masked, `weight_mask` and `weight_orig`, the parameter itself,
stand beside it: from these a wrapped model goes on.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from torch import nn

from prune_core.masking.sharded import is_sharded, sharded_like

if TYPE_CHECKING:
    from prune_core.masking.wrapper import PrunerModuleWrapper

__all__ = ["DENSE", "SUFFIX", "name_plainly", "saved_besides", "to_plain_names", "to_wrapper"]

SUFFIX = "_mask"
DENSE = "_orig"
WRAPPED = "wrapped"
"""Said in the metadata of a state dict, beside the version of a module."""


def to_plain_names(
    wrapper: PrunerModuleWrapper, state: dict[str, Any], prefix: str, keep_vars: bool
) -> None:
    """Name what is saved as a plain module does, with what only a wrapped one needs beside it."""
    masks = {name: state.pop(f"{prefix}{name}{SUFFIX}", None) for name in wrapper.masked_names}
    inner = f"{prefix}module."
    for key in [key for key in state if key.startswith(inner)]:
        state[prefix + key.removeprefix(inner)] = state.pop(key)
    versions = getattr(state, "_metadata", {})
    for key in [key for key in versions if f"{key}.".startswith(inner)]:
        versions[prefix[:-1] + key.removeprefix(inner[:-1])] = versions[key]
    if prefix[:-1] in versions:
        # Where nothing is masked, this alone tells it from the state of a plain model.
        versions[prefix[:-1]] = {**versions[prefix[:-1]], WRAPPED: True}
    for name, mask in masks.items():
        if mask is not None:
            seen = wrapper.masked(name)
            state[prefix + _key(wrapper.module, name + DENSE)] = state[prefix + name]
            state[prefix + _key(wrapper.module, name + SUFFIX)] = mask
            state[prefix + name] = seen if keep_vars else seen.detach()


def saved_besides(wrapper: PrunerModuleWrapper) -> Iterator[str]:
    """Yield the keys that a state dict may have and a plain module's has not."""
    for name in wrapper.masked_names:
        yield _key(wrapper.module, name + DENSE)
        yield _key(wrapper.module, name + SUFFIX)


def _key(module: nn.Module, name: str) -> str:
    """Return under which name something of ours is saved: one that the module leaves free."""
    while name in module._parameters or name in module._buffers or name in module._modules:
        name += "_"
    return name


def to_wrapper(
    wrapper: PrunerModuleWrapper,
    state_dict: dict[str, Any],
    prefix: str,
    metadata: Any,
    missing_keys: list[str],
) -> None:
    """Send what has a plain name to the wrapped module; a dense weight instead of a masked."""
    ours: dict[str, Any] = {}
    for name in wrapper.masked_names:
        plain, parameter = prefix + name, wrapper.parameter(name)
        if (mask := prefix + _key(wrapper.module, name + SUFFIX)) in state_dict:
            getattr(wrapper, name + SUFFIX)  # makes the mask that the values are copied into
            ours[f"{plain}{SUFFIX}"] = state_dict.pop(mask)
        if (dense := prefix + _key(wrapper.module, name + DENSE)) in state_dict:
            state_dict[plain] = state_dict.pop(dense)
        elif f"{plain}{SUFFIX}" in ours and plain in state_dict:
            missing_keys.append(dense)  # what is masked would be forgotten
        elif plain in state_dict and WRAPPED in metadata:
            wrapper._buffers[name + SUFFIX] = None  # nothing was masked when it was saved
        if plain in state_dict and not is_sharded(state_dict[plain]):
            state_dict[plain] = sharded_like(state_dict[plain], parameter)
    slots = {wrapper.target + SUFFIX, wrapper.target.removesuffix("weight") + "bias" + SUFFIX}
    for name in wrapper._buffers.keys() - slots:  # what set_wrappers_attribute() has put here
        if (key := prefix + name) in state_dict:
            ours[key] = state_dict.pop(key)
    # Before wrappers took their name out of the keys, they were `conv.module.weight`.
    inner = f"{prefix}module."
    named_so = () if "module" in wrapper.module._modules else (inner,)
    for key in [key for key in state_dict if key.startswith(prefix)]:
        if not key.startswith(named_so):
            state_dict[inner + key.removeprefix(prefix)] = state_dict.pop(key)
    state_dict.update(ours)


def name_plainly(wrapper: nn.Module, keys: Any) -> None:
    """Call what could not be loaded by the names that a plain model has."""
    prefix, messages = wrapper.__dict__.pop("_loading")
    inner = f"{prefix}module."
    for names in (keys.missing_keys, keys.unexpected_keys):
        names[:] = [prefix + n.removeprefix(inner) if n.startswith(inner) else n for n in names]
    messages[:] = [said.replace(f" {inner}", f" {prefix}") for said in messages]
