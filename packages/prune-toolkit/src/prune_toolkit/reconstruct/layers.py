"""Fitting the layers of a model to masks that are about to come into force."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from prune_core.errors import ConfigError, PruneError
from prune_core.masking import output_axis, weight_name
from prune_core.masking.axes import masked_names
from prune_toolkit.calibration.layers import bias_name, is_layer, matrix_of, weight_of
from prune_toolkit.calibration.statistics import Statistics
from prune_toolkit.reconstruct.base import LayerFit, LayerReconstructor
from prune_toolkit.reconstruct.solve import NotPositiveError

if TYPE_CHECKING:
    from prune_core.masking import Masks
    from prune_core.masking.rewrite import Rewrites
    from prune_core.pruning.pruner import Pruner

__all__ = ["Fitted", "fit_layer", "layers_to_fit", "loses_channels", "naming", "storable"]


class Fitted(NamedTuple):
    """A layer whose weight can make up for something, and where it may differ from zero."""

    module: nn.Module
    support: Tensor


def loses_channels(pruner: Pruner, masks: Masks) -> bool:
    """Whether masks take whole output channels, which other layers then get no input from."""
    for name, tensors in masks.items():
        wrapper = pruner._wrappers.get(name)
        mask = tensors.get(wrapper.target) if wrapper is not None else None
        if wrapper is None or mask is None or mask.ndim < 2:
            continue
        rows = mask.transpose(0, output_axis(wrapper.module)).flatten(1)
        if bool((~rows.bool()).all(1).any()):
            return True
    return False


def layers_to_fit(pruner: Pruner, masks: Masks, coupling: Any = None) -> dict[str, Fitted]:
    """Return the layers that masks leave with less than they had.

    Those are layers of which single weights are masked, and layers that read channels which
    nobody makes any more, whether they are pruned themselves or not.

    Args:
        pruner: The pruner, whose model may be wrapped.
        masks: What is going to be masked.
        coupling: The units of the model, where whole channels are masked.
    """
    with pruner.plain() as model:
        gone = {} if coupling is None else coupling.whole(masks)
        modules = dict(model.named_modules())
        shared = Counter(id(p) for m in modules.values() for p in m.parameters(recurse=False))
    found = {}
    for name, module in modules.items():
        weight = weight_name(module)
        if weight is None or not is_layer(module) or shared[id(module.get_parameter(weight))] > 1:
            continue
        own = masks.get(name, {}).get(weight)
        other = gone.get(f"{name}.{weight}" if name else weight)
        if own is None and other is None:
            continue
        device = module.get_parameter(weight).device
        parts = [mask.to(device, torch.bool) for mask in (own, other) if mask is not None]
        support = matrix_of(module, parts[0] if len(parts) == 1 else parts[0] & parts[1])
        alive = support.any(-1, keepdim=True)
        if bool((support | ~alive).all()):
            continue  # all outputs that are left are computed as before
        found[name] = Fitted(module, support)
    return found


def fit_layer(
    name: str,
    layer: Fitted,
    statistics: Statistics,
    steps: Sequence[LayerReconstructor],
    pruner: Pruner,
    masks: Masks,
    rewrites: Rewrites,
) -> None:
    """Give one layer the weight, and the bias, that its reconstructors find.

    What its own mask hides keeps its value; masks may be taken off.
    """
    module, support = layer
    wrapper = pruner._wrappers.get(name)
    parameter_name = weight_name(module) or "weight"
    parameter = module.get_parameter(parameter_name).detach()
    before = wrapper.masked(parameter_name).detach() if wrapper is not None else parameter
    weight = matrix_of(module, before)
    left, missing = weight * support, None
    with naming(name):
        for step in steps:
            left, missing = step.fit(LayerFit(name, module, weight, left, support, statistics))
    value = storable(name, weight_of(module, left * support), parameter.dtype)
    own = masks.get(name, {}).get(parameter_name)
    if own is not None:
        value = torch.where(own.to(value.device, torch.bool), value, parameter)
    rewrites.put(module, parameter_name, value)
    if missing is not None:
        _add_to_bias(name, module, missing, support, rewrites)
        if wrapper is not None:
            wrapper.masked_names = masked_names(module)


@contextmanager
def naming(layer: str) -> Iterator[None]:
    """Say which layer it is that cannot be solved."""
    try:
        yield
    except NotPositiveError as error:
        raise PruneError(f"{layer!r} cannot be fitted: {error}") from error


def storable(layer: str, value: Tensor, dtype: torch.dtype) -> Tensor:
    """Return new values of a parameter in its type.

    Raises:
        PruneError: They are not finite there; float16 ends at 65504.
    """
    stored = value.to(dtype)
    if not bool(stored.isfinite().all()):
        raise PruneError(
            f"What {layer!r} was fitted to does not fit into {dtype}: it overflows. Run the model "
            "in float32 and convert it afterwards, or give a larger damping."
        )
    return stored


def _add_to_bias(
    name: str, module: nn.Module, missing: Tensor, support: Tensor, rewrites: Rewrites
) -> None:
    bias = bias_name(module)
    if not hasattr(module, bias):
        raise ConfigError(
            f"{name!r} is a {type(module).__name__}, which adds no bias, so nothing can be moved "
            "into it. Exclude it, or reconstruct by least squares."
        )
    now: Tensor | None = getattr(module, bias)
    outputs = support.any(-1).flatten()
    added = torch.where(outputs, missing, torch.zeros_like(missing))
    value = added if now is None else now.detach().to(added.dtype) + added
    dtype = module.get_parameter(weight_name(module) or "weight").dtype
    rewrites.put(module, bias, storable(name, value, dtype if now is None else now.dtype))
