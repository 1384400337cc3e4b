"""Low-rank adapters on sparse weights, with peft: trained and merged without filling zeros.

An adapter adds `B A` to a weight, which is zero nowhere. Merged as it is, it fills every zero of
the weight; and with the zeros written again, the model computes something else than what was
trained. So it is trained as it will be merged: `W + M ∘ (B A)`, M being 0 where W is.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from prune_core.compressed import model_of
from prune_core.errors import PruneError, warn
from prune_core.masking import check_model, replace_modules, wrappers_in

__all__ = ["merge_lora", "sparse_lora"]


def sparse_lora(model: nn.Module) -> nn.Module:
    """Let adapters of peft add nothing where the weights below them are zero.

    Args:
        model: What `peft.get_peft_model` returned for a model with zeros in its weights; changed
            in place.

    Returns:
        The model.

    Raises:
        PruneError: There is no adapter, or one that cannot be seen through zeros.

    Example:
        ```python
        model = sparse_lora(peft.get_peft_model(sparse, peft.LoraConfig(target_modules=["fc"])))
        recover(model, data, teacher=dense)
        sparse = merge_lora(model)
        ```
    """
    for name, layer in _adapted(model).items():
        for adapter in layer.active_adapters:
            dropout: Any = dict(layer.lora_dropout.items()).get(adapter)
            if getattr(dropout, "p", 0):
                raise PruneError(
                    f"The adapter of {name!r} drops inputs (lora_dropout={dropout.p}), which a "
                    "merged weight cannot do, so it cannot be trained as it will be merged. Set "
                    "lora_dropout=0."
                )
        layer.forward = partial(_forward, layer)
    return model


def merge_lora(model: nn.Module) -> nn.Module:
    """Add adapters of peft to the weights below them, and keep the zeros of those.

    Args:
        model: What `peft.get_peft_model` returned, or a model with adapters in it; changed in
            place.

    Returns:
        The model itself, without adapters.

    Raises:
        PruneError: There is no adapter, or one that cannot be merged; nothing is changed then.
    """
    adapted = _adapted(model)
    added = {name: _added(layer) for name, layer in adapted.items()}
    for name, delta in added.items():
        if not bool(delta.isfinite().all()):
            raise PruneError(f"The adapter of {name!r} holds NaN or infinity; nothing was merged.")
    dense = [
        name
        for name, layer in adapted.items()
        if not _sparse(layer) and bool((layer.get_base_layer().weight == 0).any())
    ]
    if dense:
        warn(
            f"The adapter of {dense[0]!r} was trained to fill zeros of the weight, and they stay "
            "zero, so the merged model computes something else. Call sparse_lora(model) before "
            "the training."
        )
    with torch.no_grad():
        for name, layer in adapted.items():
            layer.get_base_layer().weight.add_(added[name])
    inner: Any = getattr(model_of(model), "get_base_model", None)
    root: nn.Module = inner() if callable(inner) else model_of(model)
    replace_modules(root, {layer: layer.get_base_layer() for layer in adapted.values()})
    for parameter in root.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    return root


def _forward(layer: Any, inputs: Tensor, *args: Any, **kwargs: Any) -> Any:
    base = layer.get_base_layer()
    if layer.disable_adapters:
        return base(inputs, *args, **kwargs)
    weight = base.weight + _added(layer).to(base.weight)
    return functional_call(base, {"weight": weight}, (inputs, *args), kwargs)


def _added(layer: Any) -> Tensor:
    """Return what the adapters of a layer add to its weight, 0 where that is zero."""
    weight = layer.get_base_layer().weight
    deltas = [layer.get_delta_weight(adapter) for adapter in layer.active_adapters]
    total = torch.stack([delta.to(weight) for delta in deltas]).sum(0)
    return total.masked_fill(weight == 0, 0)


def _sparse(layer: Any) -> bool:
    return getattr(vars(layer).get("forward"), "func", None) is _forward


def _adapted(model: nn.Module) -> dict[str, Any]:
    """Return the layers with adapters, which are told by what they can do."""
    model = model_of(model)
    check_model(model)
    if wrapped := wrappers_in(model):
        raise PruneError(
            f"The model is masked by wrappers ({next(iter(wrapped))!r} among others), which peft "
            "does not understand. Unwrap it first, prune_core.unwrap(model): its zeros stay in its "
            "weights."
        )
    found = dict(_layers(model))
    if not found:
        raise PruneError(
            "The model has no adapter. Add some with peft.get_peft_model(model, LoraConfig(…)), "
            "or name other target_modules."
        )
    for name, layer in found.items():
        _check(name, layer)
    return found


def _layers(model: nn.Module) -> Iterator[tuple[str, Any]]:
    for name, module in model.named_modules():
        if callable(getattr(module, "get_delta_weight", None)) and hasattr(module, "base_layer"):
            yield name, module


def _check(name: str, layer: Any) -> None:
    if layer.merged:
        raise PruneError(
            f"The adapter of {name!r} is merged already, which has filled the zeros of its weight. "
            "Take it back with unmerge()."
        )
    weight = getattr(layer.get_base_layer(), "weight", None)
    if not isinstance(weight, nn.Parameter) or not weight.is_floating_point():
        raise PruneError(
            f"The layer below the adapter of {name!r} has no plain weight to add to, such as one "
            "that is quantized."
        )
    if any(getattr(layer, "use_dora", {}).get(adapter) for adapter in layer.active_adapters):
        raise PruneError(
            f"The adapter of {name!r} is a DoRA, which adds no plain matrix. Use LoRA."
        )
