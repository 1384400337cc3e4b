"""Prune the least important entries of many tensors, wherever they are."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from prune_core.errors import ConfigError
from prune_filter.functional._errors import ArgumentTypeError
from prune_filter.functional.amounts import _units_to_prune
from prune_filter.functional.arguments import checked_scores, tensor_to_prune
from prune_filter.functional.custom import custom_from_mask
from prune_filter.functional.method import BasePruningMethod, PruningContainer, hook_of
from prune_filter.functional.remaining import pruning_type
from prune_filter.functional.unstructured import L1Unstructured
from prune_toolkit.allocate.selection import smallest

_MAGNITUDE = L1Unstructured.compute_mask


def global_unstructured(
    parameters: Iterable[tuple[Module, str]],
    pruning_method: Any,
    importance_scores: Mapping[tuple[Module, str], Tensor] | None = None,
    **kwargs: Any,
) -> None:
    """Prune the entries of all `parameters` together, as if they were one tensor.

    By magnitude this takes no copy of the parameters; any other method sees them in a row.

    Args:
        parameters: pairs of a module and the name of one of its parameters.
        pruning_method: an unstructured subclass of `BasePruningMethod`, such as
            `L1Unstructured`.
        importance_scores: for some of the pairs, what counts in place of the parameter's values;
            of the same shape.
        **kwargs: arguments of the method, such as `amount`: a fraction of all entries left when
            a float, their number when an int.

    Raises:
        ArgumentTypeError: a TypeError, for instance because the method is not unstructured.

    >>> net = torch.nn.Sequential(torch.nn.Linear(10, 4), torch.nn.Linear(4, 1))
    >>> parameters = [(net[0], "weight"), (net[1], "weight")]
    >>> global_unstructured(parameters, pruning_method=L1Unstructured, amount=10)
    >>> sum(int((layer.weight_mask == 0).sum()) for layer in net)
    10
    """
    if not isinstance(parameters, Iterable):
        raise ArgumentTypeError(
            f"parameters={parameters!r} is a {type(parameters).__name__}; it must be an iterable "
            "of (module, name) pairs."
        )
    if importance_scores is not None and not isinstance(importance_scores, Mapping):
        raise ArgumentTypeError(
            f"importance_scores is a {type(importance_scores).__name__}; it must be a dict from "
            "(module, name) to a tensor."
        )
    method = pruning_method(**kwargs)
    if (kind := pruning_type(method)) != "unstructured":
        raise ArgumentTypeError(
            f"{type(method).__name__} has PRUNING_TYPE {kind!r}; only 'unstructured' methods can "
            "compare entries of different tensors."
        )
    pairs = list(parameters)
    for pair in pairs:
        if not (isinstance(pair, Sequence) and len(pair) == 2 and isinstance(pair[0], Module)):
            raise ArgumentTypeError(
                f"parameters has a {type(pair).__name__}; it must be an iterable of (module, name) "
                "pairs, such as [(model.fc, 'weight')]."
            )
    if not pairs:
        raise ConfigError("parameters is empty, so there is nothing to prune.")
    given = importance_scores or {}
    scores = [_scores(module, name, given.get((module, name))) for module, name in pairs]
    masks = [getattr(module, f"{name}_mask", None) for module, name in pairs]
    combine = _by_magnitude if type(method).compute_mask is _MAGNITUDE else _in_a_row
    for (module, name), mask in zip(pairs, combine(method, pairs, scores, masks), strict=True):
        custom_from_mask(module, name, mask)


def _scores(module: Module, name: str, scores: Tensor | None) -> Tensor:
    _, hook = hook_of(module, name)
    tensor = tensor_to_prune(module, name, pruned=hook is not None)
    # Where a plain mask leaves anything, the original is what it leaves, without a product.
    if hook is not None and type(hook).apply_mask is BasePruningMethod.apply_mask:
        tensor = getattr(module, f"{name}_orig")
    return checked_scores(scores, tensor, f"parameter {name!r}")


def _by_magnitude(
    method: L1Unstructured,
    pairs: list[tuple[Module, str]],
    scores: list[Tensor],
    masks: list[Tensor | None],
) -> list[Tensor]:
    labels = [
        f"parameters[{i}] ({name!r} of {type(module).__name__})"
        for i, (module, name) in enumerate(pairs)
    ]
    left = [None if mask is None else mask == 1 for mask in masks]
    total = sum(
        t.numel() if part is None else int(part.count_nonzero())
        for t, part in zip(scores, left, strict=True)
    )
    pruned = smallest(
        dict(zip(labels, scores, strict=True)),
        _units_to_prune(method.amount, total),
        among=dict(zip(labels, left, strict=True)),
        transform=torch.abs,
    )
    return [mark.logical_not_() for mark in pruned.values()]


@torch.no_grad()
def _in_a_row(
    method: BasePruningMethod,
    pairs: list[tuple[Module, str]],
    scores: list[Tensor],
    masks: list[Tensor | None],
) -> list[Tensor]:
    row = torch.cat([t.reshape(-1) for t in scores])
    default_mask = torch.cat(
        [
            (torch.ones_like(t) if mask is None else mask).reshape(-1)
            for t, mask in zip(scores, masks, strict=True)
        ]
    )
    method._tensor_name = "row"
    mask = PruningContainer(method).compute_mask(row, default_mask)
    parts = torch.split(mask, [t.numel() for t in scores])
    return [part.view(t.shape) for part, t in zip(parts, scores, strict=True)]
