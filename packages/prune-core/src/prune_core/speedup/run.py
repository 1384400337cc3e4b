"""Make a model smaller and prove that it computes the same, or leave it as it was."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from os import PathLike
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import nn

from prune_core.errors import SpeedupError
from prune_core.graph.propagate import Labelling, propagate
from prune_core.graph.rules import has_rule
from prune_core.graph.trace import Recorder, trace
from prune_core.graph.units import Unit
from prune_core.masking import wrappers_in
from prune_core.speedup.choose import labels_of_units, reasons_for_keeping, removable
from prune_core.speedup.constants import check_choice, zeroed
from prune_core.speedup.cost import cost_of, flops_of
from prune_core.speedup.masks import Masks, flat_masks, nested_masks, zeros_of
from prune_core.speedup.plan import Plan, make_plan
from prune_core.speedup.reference import masked_outputs
from prune_core.speedup.repair import Mismatch, repair
from prune_core.speedup.report import Change, SpeedupReport
from prune_core.speedup.sizes import update_sizes
from prune_core.speedup.surgery import plain_attributes, record_surgery
from prune_core.speedup.tensors import Snapshot, cut_tensors, mask_tensors, masks_of
from prune_core.speedup.verify import compare

__all__ = ["ModelSpeedup", "shrink"]

_PLANS = 50


def shrink(
    model: nn.Module,
    example_inputs: Any,
    masks: Masks | str | PathLike[str] | None = None,
    *,
    units: Iterable[Unit] | None = None,
    constants: str = "keep",
    verify: bool = True,
    tolerance: float | None = None,
) -> SpeedupReport:
    """Take out of a model, in place, what its masks make superfluous.

    Args:
        model: Any module; it stays the same Python object with smaller tensors.
        example_inputs: A tensor, a tuple of positional or a dict of keyword arguments.
        masks: `{module: {tensor: 0/1 tensor}}` or a file of them. Without masks and units, what
            the parameters' own zeros make superfluous.
        units: Units to remove instead, as found by `prune_core.units` on this model.
        constants: What to do where a masked channel still carries a constant, such as the bias of
            the normalisation after a masked convolution. `"keep"` leaves the channel and its mask,
            so that nothing changes; `"zero"` masks what makes the constant as well, and the
            report says by how much the output moved.
        verify: Compare the small model with the masked one and go back if they differ.
        tolerance: The largest difference allowed, relative to the largest number of an output;
            by default what rounding does to the output's type (1e-4 for float32).

    Raises:
        SpeedupError: The small model would compute something else, or the model is still
            wrapped; it is untouched.
        MaskError: The masks do not fit the model.
    """
    seconds: dict[str, float] = {}
    check_choice(constants)
    if wrapped := wrappers_in(model):
        raise SpeedupError(
            f"{next(iter(wrapped))!r} is still wrapped by a pruner: take the wrappers off first, "
            "with prune_core.unwrap(model) or the pruner's own unwrap."
        )
    flat = flat_masks(model, masks)
    moved = 0.0
    if constants == "zero":
        with _timed(seconds, "constants"):
            flat, moved = zeroed(model, example_inputs, flat)
    with _timed(seconds, "trace"):
        graph = trace(model, example_inputs, known=has_rule)
    with _timed(seconds, "units"):
        labelling = propagate(graph)
    with _timed(seconds, "plan"):
        zeros = {} if units is not None else zeros_of(model, graph, flat)
        if units is not None:
            chosen: Iterable[int] = labels_of_units(labelling, units)
        else:
            chosen = removable(labelling, zeros)
        plan = make_plan(labelling, chosen)
    report = SpeedupReport(model, unknown=dict(labelling.flow.unknown), moved=moved)
    before = sum(parameter.numel() for parameter in model.parameters())
    original = Snapshot(model)
    attributes = plain_attributes(model)
    try:
        with _timed(seconds, "shrink"):
            plan = _fit(model, example_inputs, plan, flat, original, report)
        if verify:
            with _timed(seconds, "verify"):
                meant = flat if units is None else _both(flat, masks_of(plan))
                _verify(model, example_inputs, plan, meant, original, report, tolerance)
    except BaseException:
        original.restore()
        raise
    report.parameters = before, sum(parameter.numel() for parameter in model.parameters())
    report.flops = flops_of(graph), report.flops[1] if verify else cost_of(plan).flops
    report.seconds = seconds
    record_surgery(model, attributes)
    report.kept = reasons_for_keeping(plan, zeros)
    _describe(report, labelling, plan, flat)
    return report


def _fit(
    model: nn.Module,
    example_inputs: Any,
    plan: Plan,
    masks: Mapping[str, torch.Tensor],
    original: Snapshot,
    report: SpeedupReport,
) -> Plan:
    """Cut and repair; where a forward cannot be repaired, leave what it needs and try again."""
    for _ in range(_PLANS):
        cut_tensors(model, plan, masks)
        update_sizes(model, plan)
        repairs = repair(model, example_inputs, plan)
        if repairs.unresolved is None:
            report.attributes = repairs.attributes
            report.corrections = [
                (site.module, site.function, site.occurrence) for site in repairs.corrections
            ]
            return plan
        original.restore()
        less = _without(plan, repairs.unresolved)
        report.returned.append(f"{repairs.unresolved.module}: {repairs.unresolved.message}")
        if not less.removed.any() or (less.removed == plan.removed).all():
            raise SpeedupError(
                f"The forward of {repairs.unresolved.module or 'the model'} does not follow "
                f"smaller tensors: {repairs.unresolved.message}"
            )
        plan = less
    raise SpeedupError(f"No plan fits the model: {report.returned[-1]}")


def _without(plan: Plan, mismatch: Mismatch) -> Plan:
    """Leave alone what changes the sizes around the place that could not be repaired."""
    calls = plan.labelling.graph.calls
    position = min(mismatch.position, len(calls) - 1)
    for reach in (0, 1, 3, 10, len(calls)):
        less = plan
        for call in calls[max(position - reach, 0) : position + reach + 1]:
            for value in (*call.inputs(), *(i for i in call.outputs if i is not None)):
                axes = plan.kept_of_value(value) if value in plan.labelling.flow.values else {}
                less = less.without(value, axes)
        if (less.removed != plan.removed).any():
            return less
    return plan


def _verify(
    model: nn.Module,
    example_inputs: Any,
    plan: Plan,
    masks: Mapping[str, torch.Tensor],
    original: Snapshot,
    report: SpeedupReport,
    tolerance: float | None,
) -> None:
    small = Snapshot(model)
    recorder = Recorder(model, has_rule)
    found = recorder.run(example_inputs)
    report.flops = 0, flops_of(recorder.graph)
    original.restore()
    mask_tensors(model, masks)
    expected = masked_outputs(model, example_inputs, plan)
    small.restore()
    report.difference = compare(expected, found, tolerance)
    if not report.difference.ok:
        raise SpeedupError(
            f"The small model differs from the masked one by {report.difference.relative:.2e} "
            f"(relative) in {report.difference.where}, where "
            f"{report.difference.tolerance:.0e} is allowed; the model is left as it was."
        )


def _describe(
    report: SpeedupReport, labelling: Labelling, plan: Plan, masks: Mapping[str, torch.Tensor]
) -> None:
    graph, labels = labelling.graph, labelling.labels
    residual: dict[str, torch.Tensor] = dict(masks)
    for value, names in graph.tensors.items():
        kept = plan.kept(value)
        if kept:
            report.changes.append(Change(names[0], graph.metas[value].shape, plan.shape(value)))
        for name in names:
            if name in residual:
                for axis, indices in kept.items():
                    residual[name] = residual[name].index_select(axis, indices)
    roots = labels.find(np.arange(len(labels)))
    owned = np.concatenate(
        [c for cs in labelling.axes.values() for c in cs if c is not None] or [roots]
    )
    report.removed = len(np.unique(roots[owned][plan.removed[owned]]))
    report.masks = nested_masks({n: m for n, m in residual.items() if not bool(m.all())})
    report.live_norms = sum(
        bool(plan.removed[found].any()) for _, found in labelling.flow.live_norms
    )


def _both(
    masks: Mapping[str, torch.Tensor], others: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Mask what either masks."""
    common = {name: masks[name] & others[name] for name in masks.keys() & others.keys()}
    return {**masks, **others, **common}


@contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    start = perf_counter()
    yield
    seconds[stage] = perf_counter() - start


class ModelSpeedup:
    """The two-step form of `shrink`: `ModelSpeedup(model, inputs, masks).speedup_model()`."""

    def __init__(
        self,
        model: nn.Module,
        dummy_input: Any,
        masks_or_file: Masks | str | PathLike[str] | None = None,
        **options: Any,
    ) -> None:
        """Keep the arguments of `shrink`."""
        self.model = model
        self.dummy_input = dummy_input
        self.masks = masks_or_file
        self.options = options
        self.report: SpeedupReport | None = None

    def speedup_model(self) -> nn.Module:
        """Shrink the model in place and return it."""
        self.report = shrink(self.model, self.dummy_input, self.masks, **self.options)
        return self.model
