"""Putting wrappers into a model and taking them out again.

Both are a handful of dictionary assignments after everything that can fail has been done, so a
model is wrapped or it is not, and never half.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import nn

from prune_core.compressed import model_of
from prune_core.masking.bare import check_model, put_child
from prune_core.masking.wrapper import PrunerModuleWrapper
from prune_core.traversal import modules_in

__all__ = ["replace_modules", "unwrap", "wrappers_in"]


def replace_modules(model: nn.Module, replacements: Mapping[nn.Module, nn.Module]) -> bool:
    """Put modules in the place of others, wherever those stand in the model.

    Returns:
        Whether any of them stands there.
    """
    replaced = False
    for parent in modules_in(model) if replacements else ():
        if replacements.keys().isdisjoint(parent._modules.values()):
            continue
        for key, child in parent._modules.items():
            if child is not None and child in replacements:
                put_child(parent, key, replacements[child])
                replaced = True
    return replaced


def wrappers_in(model: nn.Module) -> dict[str, PrunerModuleWrapper]:
    """Return `{module name: wrapper}` for the wrappers that a model holds."""
    return {m.name: m for m in modules_in(model) if isinstance(m, PrunerModuleWrapper)}


def unwrap(
    model: nn.Module,
    wrappers: Iterable[PrunerModuleWrapper] | None = None,
    *,
    apply: bool = True,
) -> nn.Module:
    """Take wrappers out of a model.

    Args:
        model: The model, changed in place. It may be a copy of the one that was wrapped.
        wrappers: The ones to take out; all that are found unless given.
        apply: Whether the masked values stay in its parameters. Without, the model is dense
            again: nothing is masked, and weights that were reconstructed are what they were
            before, unless they have been trained since.
    """
    model = model_of(model)
    check_model(model)
    if wrappers is None:
        wrappers = wrappers_in(model).values()
    wrappers = list(wrappers)
    for wrapper in wrappers:
        if apply:
            wrapper.apply_masks()
        else:
            wrapper.rewrites.undo()
    replace_modules(model, {wrapper: wrapper.module for wrapper in wrappers})
    for wrapper in wrappers:
        if wrapper.for_good:
            wrapper.drop_masks()
    return model
