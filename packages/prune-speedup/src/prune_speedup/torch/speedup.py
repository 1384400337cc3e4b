"""Make a model smaller and prove that it computes the same, or leave it as it was."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from os import PathLike
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import nn

from prune_core.errors import SpeedupError, warn
from prune_core.events import emit
from prune_core.masking import wrappers_in
from prune_speedup.engine.plan import Plan, make_plan
from prune_speedup.engine.propagate import Labelling
from prune_speedup.engine.removable import labels_of_units
from prune_speedup.engine.standing import standing
from prune_speedup.engine.units import Unit
from prune_speedup.gc_pause import collecting_later
from prune_speedup.torch.analysis import labelled
from prune_speedup.torch.constants.zero import check_choice, masked_output, settle
from prune_speedup.torch.cost import cost_of, flops_of
from prune_speedup.torch.export_fallback import bake, exported
from prune_speedup.torch.kept import count_masked
from prune_speedup.torch.masks import Masks, asked_for, flat_masks, nested_masks, zeros_of
from prune_speedup.torch.measure import measure as measured
from prune_speedup.torch.measure import size_of, zeros_in
from prune_speedup.torch.model_config import follow, shapes_of
from prune_speedup.torch.proof.compare import compare
from prune_speedup.torch.proof.masked_reference import Meaning
from prune_speedup.torch.proof.run import prove
from prune_speedup.torch.record.recorder import trace
from prune_speedup.torch.report import Change, SpeedupReport
from prune_speedup.torch.resize.layers import update_sizes
from prune_speedup.torch.resize.search import Mismatch, repair
from prune_speedup.torch.rules import has_rule
from prune_speedup.torch.surgery import plain_attributes, record_surgery
from prune_speedup.torch.tensors import Snapshot, cut_tensors, places

__all__ = ["ModelSpeedup", "shrink"]

_PLANS = 50
MOVED = 1e-5
"""From here on an output has moved by more than rounding moves it."""


class _CannotFollowError(SpeedupError):
    """The forward does not run on smaller tensors, whatever is repaired."""


def shrink(
    model: nn.Module,
    example_inputs: Any,
    masks: Masks | str | PathLike[str] | None = None,
    *,
    units: Iterable[Unit] | None = None,
    constants: str = "exact",
    verify: bool = True,
    verify_inputs: Sequence[Any] = (),
    tolerance: float | None = None,
    measure: bool = False,
    fallback: bool = False,
) -> SpeedupReport:
    """Take out of a model, in place, what its masks make superfluous.

    Args:
        model: Any module; it stays the same Python object with smaller tensors.
        example_inputs: A tensor, a tuple of positional or a dict of keyword arguments.
        masks: `{module: {tensor: 0/1 tensor}}` or a file of them. Without masks and units, what
            the parameters' own zeros make superfluous.
        units: Units to remove instead, as found by `prune_core.units` on this model.
        constants: What to do where a masked channel still carries a constant, such as the bias of
            the normalisation after a masked convolution. `"exact"` moves it into the bias of the
            layer that reads it wherever that changes nothing, and leaves the channel and its mask
            elsewhere; `"keep"` moves nothing. `"fold"` also moves it where the layer pads with
            zeros, which changes what is computed at the edge, and `"remove"` besides leaves out
            what cannot be moved. `"zero"` masks all that belongs to a channel of which each layer
            is masked, constant or not. The report says by how much the output moved.
        verify: Compare the small model with the masked one and go back if they differ, on the
            example and on a batch of another size.
        verify_inputs: More inputs to compare them on, each in the form of `example_inputs`.
        tolerance: The largest difference allowed, relative to the largest number of an output;
            by default what rounding does to the output's type (1e-4 for float32).
        measure: Time both models, and count what their results hold in memory.
        fallback: Where the forward cannot follow all that is to go, shrink the graph that
            `torch.export` makes of it instead of leaving what cannot go. Then the model stays as
            it was, and `report.model` is a graph module.

    Raises:
        SpeedupError: The small model would compute something else, or the model is still
            wrapped; it is untouched.
        MaskError: The masks do not fit the model.

    Warns:
        PruneWarning: A notable share of what the masks ask for stays, or nothing was removed.
    """
    report = _shrink(
        model,
        example_inputs,
        masks,
        units=units,
        constants=constants,
        verify=verify,
        verify_inputs=verify_inputs,
        tolerance=tolerance,
        measure=measure,
        fallback=fallback,
    )
    _tell(report)
    return report


def rehearse(
    model: nn.Module, example_inputs: Any, masks: Masks, constants: str = "exact"
) -> SpeedupReport:
    """Return the report of a `shrink` whose model is then put back; nothing is compared."""
    untouched = Snapshot(model)
    try:
        return _shrink(model, example_inputs, masks, constants=constants, verify=False)
    finally:
        untouched.restore()


def _tell(report: SpeedupReport) -> None:
    """Tell listeners of a smaller model, and the user of what is not as small as was asked."""
    emit("prune_model_shrunk", model=report.model, report=report)
    if said := report.shortfall():
        warn(said)


def _shrink(
    model: nn.Module,
    example_inputs: Any,
    masks: Masks | str | PathLike[str] | None = None,
    *,
    units: Iterable[Unit] | None = None,
    constants: str = "exact",
    verify: bool = True,
    verify_inputs: Sequence[Any] = (),
    tolerance: float | None = None,
    measure: bool = False,
    fallback: bool = False,
) -> SpeedupReport:
    """`shrink`, without telling anybody."""
    check_choice(constants)
    if wrapped := wrappers_in(model):
        raise SpeedupError(
            f"{next(iter(wrapped))!r} is still wrapped by a pruner: take the wrappers off first, "
            "with prune_core.unwrap(model) or the pruner's own unwrap."
        )
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.is_meta:
            raise SpeedupError(
                f"{name!r} is on the meta device: it has a shape and no numbers, so that nothing "
                "can be proved. prune_core.units(model, inputs) works there; to shrink the model, "
                "load it onto a real device."
            )
    flat = flat_masks(model, masks)
    untouched = Snapshot(model)
    chosen = None if units is None else list(units)

    def shrunk(model: nn.Module, *, yielding: bool = True) -> SpeedupReport:
        return _shrunk(
            model,
            example_inputs,
            flat,
            units=chosen,
            constants=constants,
            verify=verify,
            verify_inputs=verify_inputs,
            tolerance=tolerance,
            measure=measure,
            yielding=yielding,
        )

    def fallen_back() -> SpeedupReport:
        """The model, if it follows in everything; else its graph; else what it can."""
        try:
            return shrunk(model, yielding=False)
        except _CannotFollowError as error:
            untouched.restore()
            cause = str(error)
        try:
            graph = exported(model, example_inputs)
        except SpeedupError:
            return shrunk(model)
        report = shrunk(graph)
        bake(graph)
        report.form, report.cause = "graph", cause
        return report

    try:
        report = fallen_back() if fallback else shrunk(model)
    except BaseException:
        untouched.restore()
        raise
    return report


@collecting_later()
def _shrunk(
    model: nn.Module,
    example_inputs: Any,
    flat: dict[str, torch.Tensor],
    *,
    units: Iterable[Unit] | None,
    constants: str,
    verify: bool,
    verify_inputs: Sequence[Any],
    tolerance: float | None,
    measure: bool,
    yielding: bool,
) -> SpeedupReport:
    """`shrink` of what has been checked; where it fails, the model is not put back.

    With `yielding`, units that a forward cannot do without are left alone.
    """
    seconds: dict[str, float] = {}
    shapes, given = shapes_of(model), flat
    before = sum(parameter.numel() for parameter in model.parameters())
    zeros_before, bytes_before = zeros_in(model, flat), size_of(model)
    with _timed(seconds, "trace"):
        graph = trace(model, example_inputs, known=has_rule)
    with _timed(seconds, "units"):
        labelling = labelled(graph)
    with _timed(seconds, "constants"):
        zeros = {} if units is not None else zeros_of(model, graph, flat)
        found = standing(labelling, zeros)
        done = settle(model, example_inputs, found, flat, constants) if units is None else None
    if done is not None:
        with _timed(seconds, "trace again"):
            flat = done.masks
            graph = trace(model, example_inputs, known=has_rule)
            labelling = labelled(graph)
            zeros = zeros_of(model, graph, flat)
            found = standing(labelling, zeros)
    with _timed(seconds, "plan"):
        chosen = found.removable if units is None else labels_of_units(labelling, units)
        wanted = make_plan(labelling, chosen)
    report = SpeedupReport(model, unknown=dict(labelling.flow.unknown))
    report.constants = constants
    report.uncompared = sorted(set(graph.opaque))
    original = Snapshot(model)
    attributes = plain_attributes(model)
    with _timed(seconds, "shrink"):
        plan = _fit(model, example_inputs, wanted, flat, original, report, yielding=yielding)
    if verify:
        with _timed(seconds, "verify"):
            meant = Meaning(flat, units is not None)
            report.comparison, report.verified, flops = prove(
                model, example_inputs, verify_inputs, plan, meant, original, tolerance
            )
        with _timed(seconds, "config"):
            report.config = follow(model, example_inputs, shapes)
    if done is not None:
        report.moved = compare(done.as_given, masked_output(model, example_inputs, {})).relative
    if measure:
        with _timed(seconds, "measure"):
            report.running = measured(model, example_inputs, original)
    report.parameters = before, sum(parameter.numel() for parameter in model.parameters())
    report.zeros = zeros_before, zeros_in(model)
    report.bytes = bytes_before, size_of(model)
    report.flops = flops_of(graph), flops if verify else cost_of(plan).flops
    report.seconds = seconds
    record_surgery(model, attributes, shapes)
    if units is None:
        asked = asked_for(graph, zeros, given)
        report.asked, report.kept = count_masked(model, wanted, plan, found, asked)
    _describe(report, labelling, plan, flat)
    return report


def _fit(
    model: nn.Module,
    example_inputs: Any,
    plan: Plan,
    masks: Mapping[str, torch.Tensor],
    original: Snapshot,
    report: SpeedupReport,
    *,
    yielding: bool,
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
        if not yielding or not less.removed.any() or (less.removed == plan.removed).all():
            raise _CannotFollowError(
                f"The forward of {repairs.unresolved.module or 'the model'} does not follow "
                f"smaller tensors: {repairs.unresolved.message}"
                + (f" (at first, in {report.returned[0]})" if report.returned[1:] else "")
            )
        plan = less
    raise _CannotFollowError(f"No plan fits the model: {report.returned[-1]}")


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
                    residual[name] = residual[name].index_select(
                        axis, places(indices, residual[name].device)
                    )
    roots = labels.find(np.arange(len(labels)))
    owned = np.concatenate(
        [c for cs in labelling.axes.values() for c in cs if c is not None] or [roots]
    )
    report.removed = len(np.unique(roots[owned][plan.removed[owned]]))
    model = report.model
    where = {n: t.device for n, t in (*model.named_parameters(), *model.named_buffers())}
    report.masks = nested_masks(
        {n: m.to(where.get(n, m.device)) for n, m in residual.items() if not bool(m.all())}
    )
    report.live_norms = sum(
        bool(plan.removed[found].any()) for _, found in labelling.flow.live_norms
    )


@contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    start = perf_counter()
    yield
    seconds[stage] = perf_counter() - start


class ModelSpeedup:
    """The two-step form of `shrink`: `ModelSpeedup(model, inputs, masks).speedup_model()`.

    Where `shrink` leaves masked channels of which a normalisation has made constants, this takes
    them out (`constants="remove"`), and warns of how far the output moved.
    """

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
        options = {"constants": "remove"} | self.options
        report = _shrink(self.model, self.dummy_input, self.masks, **options)
        self.report = report
        if "constants" not in self.options and report.moved > MOVED:
            warn(
                f"The output of the example moved by {report.moved:.1e} of its largest number, "
                "because masked channels of which a normalisation had made constants were taken "
                "out; constants='exact' keeps those that cannot go without a change."
            )
        _tell(report)
        return self.model
