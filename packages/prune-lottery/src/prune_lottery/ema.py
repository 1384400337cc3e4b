"""Averaged weights under the masks of the model that they average.

`torch.optim.swa_utils.AveragedModel` is a copy of the model, and goes through the buffers of both
side by side. So it needs the same wrappers and the same masks; and averaged weights that are
evaluated without masks would not be those of the ticket.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from prune_core.masking import PrunerModuleWrapper, bare, replace_modules

__all__ = ["wrap_average"]


def wrap_average(
    ema: object, wrappers: Mapping[str, PrunerModuleWrapper]
) -> dict[str, PrunerModuleWrapper]:
    """Wrap the modules of an average that stand for wrapped modules of the model.

    Args:
        ema: The average; nothing happens to one that is no module, or built differently.
        wrappers: The wrappers of the model, by the names of their modules.

    Returns:
        The wrappers of the average, by the same names.
    """
    if not isinstance(ema, nn.Module):
        return {}
    with bare(ema) as average:
        modules = dict(average.named_modules())
    found: dict[str, PrunerModuleWrapper] = {}
    made: dict[nn.Module, nn.Module] = {}
    for name, wrapper in wrappers.items():
        twin = modules.get(name)
        if isinstance(twin, PrunerModuleWrapper):
            found[name] = twin  # the average was made from a model that was wrapped already
        elif twin is not None and type(twin) is type(wrapper.module):
            found[name] = made[twin] = PrunerModuleWrapper(twin, name, wrapper.config)
        else:
            return {}
    replace_modules(ema, made)
    return found
