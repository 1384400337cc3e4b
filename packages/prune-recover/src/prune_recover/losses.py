"""How far a student is from its teacher: one function for each term of the loss."""

from __future__ import annotations

from collections.abc import Callable
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prune_core.errors import ConfigError

__all__ = ["COMPARISONS", "averaged", "hidden_error", "label_error"]

IGNORED = -100
"""The label that counts for nothing, as in torch's cross entropy."""


def averaged(each: Tensor, tokens: Tensor | None) -> Tensor:
    """Return the mean over all places; where there is padding, over those that are none."""
    if tokens is None or each.shape[: tokens.ndim] != tokens.shape:
        return each.mean()
    weight = tokens.to(each).reshape(*tokens.shape, *[1] * (each.ndim - tokens.ndim))
    weight = weight.expand_as(each)
    return (each * weight).sum() / weight.sum().clamp(min=1)


def kl(student: Tensor, teacher: Tensor, temperature: float, axis: int) -> Tensor:
    """Return `T² · KL(teacher ‖ student)` of softened distributions, at each place."""
    wanted = F.log_softmax(teacher.float() / temperature, axis)
    found = F.log_softmax(student.float() / temperature, axis)
    return temperature**2 * (wanted.exp() * (wanted - found)).sum(axis)


def mse(student: Tensor, teacher: Tensor, temperature: float, axis: int) -> Tensor:
    """Return the squared difference, at each place."""
    return (student.float() - teacher.float()).square()


def bce(student: Tensor, teacher: Tensor, temperature: float, axis: int) -> Tensor:
    """Return what several yes-or-no answers differ by, `T² · KL` of each, at each place."""
    found, wanted = student.float() / temperature, teacher.float() / temperature
    crossed = F.binary_cross_entropy_with_logits(found, wanted.sigmoid(), reduction="none")
    own = F.binary_cross_entropy_with_logits(wanted, wanted.sigmoid(), reduction="none")
    return temperature**2 * (crossed - own)


COMPARISONS: dict[str, Callable[[Tensor, Tensor, float, int], Tensor]] = {
    "kl": kl,
    "mse": mse,
    "bce": bce,
}


def hidden_error(student: Tensor, teacher: Tensor, tokens: Tensor | None) -> Tensor:
    """Return the squared error relative to the teacher's mean square, so that 1 is a lot."""
    wanted = teacher.float()
    size = averaged(wanted.square(), tokens)
    return averaged((student.float() - wanted).square(), tokens) / size.clamp(min=1e-12)


def label_error(model: nn.Module, logits: Tensor, labels: Any, axis: int) -> Tensor:
    """Return the loss of labels: the model's own, if it is one of transformers, or cross entropy.

    Raises:
        ConfigError: The labels do not fit the logits.
    """
    if not isinstance(labels, Tensor):
        raise ConfigError(
            f"labels are a {type(labels).__name__}; they must be a tensor, or label_loss= must say "
            "what to do with them."
        )
    labels = labels.to(logits.device)
    wanted = logits.movedim(axis, -1).shape[:-1]
    own = getattr(model, "loss_function", None) if hasattr(model, "config") else None
    if callable(own) and "labels" in signature(own).parameters and labels.shape == wanted:
        return _of_transformers(model, own, logits, labels)
    if labels.is_floating_point() or labels.shape != wanted:
        raise ConfigError(
            f"labels have the shape {tuple(labels.shape)} and the type "
            f"{str(labels.dtype).removeprefix('torch.')}; for logits of the shape "
            f"{tuple(logits.shape)}, class numbers of the shape {tuple(wanted)} were expected. "
            "For anything else give label_loss=, a function of outputs and labels."
        )
    counts = logits.shape[axis]
    used = labels[labels != IGNORED]
    if used.numel() and not bool(((used >= 0) & (used < counts)).all()):
        wrong = int(used[(used < 0) | (used >= counts)][0])
        raise ConfigError(
            f"A label is {wrong}; the logits have {counts} classes, so labels go from 0 to "
            f"{counts - 1}, or are {IGNORED} to be left out."
        )
    flat = logits.movedim(axis, -1).reshape(-1, counts)
    if not used.numel():
        return flat.sum() * 0  # nothing to learn from, which must not be NaN
    return F.cross_entropy(flat, labels.reshape(-1).to(torch.long), ignore_index=IGNORED)


def _of_transformers(
    model: nn.Module, own: Callable[..., Any], logits: Tensor, labels: Tensor
) -> Tensor:
    """Call a model's own loss, which knows whether labels are shifted by one token."""
    known = {
        "logits": logits,
        "pooled_logits": logits,
        "labels": labels,
        "config": model.config,
        "vocab_size": logits.shape[-1],
    }
    takes = signature(own).parameters
    loss: Tensor = own(**{name: value for name, value in known.items() if name in takes})
    return loss
