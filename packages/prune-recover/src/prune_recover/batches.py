"""What a batch is, and what a model returns for it: the forms that loops in use have."""

from __future__ import annotations

from collections.abc import Mapping
from inspect import Parameter, signature
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from prune_core.errors import ConfigError, nearest, shown
from prune_toolkit.calibration.steps import leaves, rebuilt

__all__ = ["Call", "call_of", "device_of", "logits_of", "moved", "tensor_in"]


class Call(NamedTuple):
    """What a model is called with, and the labels that go with it."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    labels: Any = None


def call_of(model: nn.Module, batch: Any) -> Call:
    """Read a batch as the arguments of a model, and labels where there are any.

    A tensor is an input; a dict holds keyword arguments; a list or tuple of two is an input and
    its labels, as a `DataLoader` yields them, and of one an input. The input of a pair may be a
    tuple or a dict of several.

    Raises:
        ConfigError: It is none of these.
    """
    if isinstance(batch, Mapping):
        kwargs = dict(batch)
        takes = "labels" not in kwargs or _takes(model, "labels")
        return Call((), kwargs, None if takes else kwargs.pop("labels"))
    if isinstance(batch, list | tuple) and len(batch) in (1, 2):
        given, labels = batch if len(batch) == 2 else (batch[0], None)
        if isinstance(given, Mapping):
            return Call((), dict(given), labels)
        if isinstance(given, list | tuple):
            return Call(tuple(given), {}, labels)
        batch = given
        if isinstance(batch, Tensor):
            return Call((batch,), {}, labels)
    if isinstance(batch, Tensor):
        return Call((batch,), {})
    size = f" of {len(batch)}" if isinstance(batch, list | tuple) else ""
    raise ConfigError(
        f"A batch is a {type(batch).__name__}{size}; it must be an input (a tensor, or a dict of "
        "keyword arguments) or a pair of an input and its labels. For other batches, give "
        "loss=, a function that takes the model and a batch and returns the loss."
    )


def _takes(model: nn.Module, name: str) -> bool:
    parameters = signature(model.forward).parameters
    return name in parameters or any(
        each.kind is Parameter.VAR_KEYWORD for each in parameters.values()
    )


def tensor_in(output: Any) -> Tensor | None:
    """Return the first tensor of numbers, not a single one, in whatever a module returned."""
    for leaf in leaves(output):
        if isinstance(leaf, Tensor) and leaf.is_floating_point() and leaf.ndim:
            return leaf
    return None


def logits_of(output: Any, where: Any, model: str) -> Tensor:
    """Return the logits in what a model returned.

    Args:
        output: A tensor, a tuple, a dict, or a `ModelOutput` of transformers.
        where: A key, a place, or a function that finds them; None where they are obvious.
        model: Which model it is, for messages.

    Raises:
        ConfigError: They are not there.
    """
    found: Any = None
    if callable(where):
        found = where(output)
    elif where is None:
        if isinstance(output, Mapping):
            found = output.get("logits")
        elif isinstance(getattr(output, "logits", None), Tensor):
            found = output.logits
        else:
            found = tensor_in(output)
    else:
        try:
            found = output[where]
        except (KeyError, IndexError, TypeError):
            found = getattr(output, where, None) if isinstance(where, str) else None
    if isinstance(found, Tensor) and found.is_floating_point():
        return found
    has = ""
    if isinstance(output, Mapping):
        has = nearest(where or "logits", map(str, output)) + " Say which: logits='its key'."
    raise ConfigError(
        f"The {model} returns {_form(output)}, in which "
        + (f"logits={shown(where)} is no tensor of numbers." if where is not None else "")
        + ("nothing is called 'logits'." if where is None else "")
        + (has or " Say where they are: logits=, a key, a place or a function of the output.")
    )


def _form(output: Any) -> str:
    return "nothing" if output is None else f"a {type(output).__name__}"


def device_of(model: nn.Module) -> torch.device | None:
    """Return where a model computes, or None for one without parameters."""
    held = next(chain(model.parameters(), model.buffers()), None)
    return None if held is None else held.device


def moved(tree: Any, device: torch.device | None) -> Any:
    """Return the same lists, tuples and dicts with all tensors on a device."""
    if device is None or all(
        leaf.device == device for leaf in leaves(tree) if isinstance(leaf, Tensor)
    ):
        return tree
    return rebuilt(tree, iter([x.to(device) if isinstance(x, Tensor) else x for x in leaves(tree)]))
