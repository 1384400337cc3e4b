"""What a pruner declares that it can do, held against what it does."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from prune_core.errors import PruneError
from prune_core.masking import output_axis
from prune_core.registry import get_engine
from prune_core.testing.subject import Subject, expect, refused
from prune_core.testing.toys import make_batch

__all__ = ["capabilities_are_as_declared"]

GRANULARITIES = ("channels", "weights")


def _delegates(subject: Subject) -> bool:
    """Whether another algorithm scores for it, as for a schedule."""
    return not getattr(subject.pruner, "granularity", "") and not hasattr(subject.pruner, "score")


def capabilities_are_as_declared(subject: Subject) -> None:
    """Granularity, modes and needs, which the class declares, are those that it has."""
    if _delegates(subject):
        return
    declared = getattr(subject.pruner, "granularity", "")
    expect(
        declared in GRANULARITIES,
        f"granularity is {declared!r}; declare on the class whether there is one score for each "
        "output channel, granularity = 'channels', or for each weight, 'weights'.",
    )
    expect(
        subject.granularity in (None, declared),
        f"the class declares granularity = {declared!r}, and {subject.granularity!r} was expected.",
    )
    _scores_are_of(subject, declared)
    modes = getattr(subject.pruner, "modes", ())
    if len(modes) > 1:
        _modes_are_there(subject, modes)
    _needs_are_true(subject)


def _scores_are_of(subject: Subject, granularity: str) -> None:
    _, pruner = subject.prepare()
    if not hasattr(pruner, "score"):
        return
    for name, scores in pruner.score().items():
        wrapper = pruner.get_modules_wrapper()[name]
        weight = wrapper.parameter(wrapper.target)
        channels, found = weight.shape[output_axis(wrapper.module)], tuple(scores.shape)
        wanted = (channels,) if granularity == "channels" else tuple(weight.shape)
        expect(
            found == wanted,
            f"granularity is {granularity!r}, and the scores of {name!r} have the shape {found} "
            f"instead of {wanted}.",
        )


def _modes_are_there(subject: Subject, modes: tuple[str, ...]) -> None:
    refused("mode='no_such_mode'", lambda: subject.prepare(mode="no_such_mode"))
    if "dependency_aware" not in modes:
        return
    inputs = make_batch(subject.make_model())[0]
    model, pruner = subject.prepare(mode="dependency_aware", dummy_input=inputs)
    _, masks = pruner.compress()
    masked: Tensor = subject.output(model)
    pruner.unwrap()

    before = sum(parameter.numel() for parameter in model.parameters())
    get_engine("torch", wanted="checking the mode 'dependency_aware'").shrink(model, inputs, masks)
    after = sum(parameter.numel() for parameter in model.parameters())
    expect(
        after < before,
        "in the mode 'dependency_aware', nothing can be removed of what is masked.",
    )
    apart = float((subject.output(model) - masked).abs().max())
    expect(
        apart <= 1e-4 * max(1.0, float(masked.abs().max())),
        f"in the mode 'dependency_aware', the small model differs from the masked one by {apart}.",
    )


def _needs_are_true(subject: Subject) -> None:
    needs_data = getattr(subject.pruner, "needs_data", False)
    if "calibrate" not in subject.arguments:
        expect(
            not needs_data,
            "the class declares needs_data, and there was no calibrate= to check it with.",
        )
        return
    without: dict[str, Any] = {n: v for n, v in subject.arguments.items() if n != "calibrate"}
    if needs_data:
        try:
            replace(subject, arguments=without).prepare()
        except (PruneError, TypeError):
            pass
        else:
            raise AssertionError("the class declares needs_data, and does without calibrate=.")
    if needs_data and not getattr(subject.pruner, "needs_labels", False):
        inputs = make_batch(subject.make_model())[0]
        with torch.no_grad():
            _, pruner = subject.prepare(calibrate=lambda model: model(inputs))
            pruner.compress()
