"""One attempt at making a model smaller: from its recording to its report."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any

import torch
from torch import nn

from prune_core.traversal import named_parameters
from prune_speedup.engine.mask_effects import Standing, standing
from prune_speedup.engine.plan import Plan, make_plan
from prune_speedup.engine.propagate import Zeros
from prune_speedup.engine.removable import labels_of_units
from prune_speedup.engine.units import Unit
from prune_speedup.torch.analysis import Analysis, analysis_of
from prune_speedup.torch.apply_plan import Cutting, Fitting, timed
from prune_speedup.torch.certificate.write import Reference, certify
from prune_speedup.torch.constants.zero import masked_output, settle
from prune_speedup.torch.cost import flops_by_module
from prune_speedup.torch.describe import describe
from prune_speedup.torch.layers import layer_sizes
from prune_speedup.torch.masks import asked_for, zeros_of
from prune_speedup.torch.measure import measure as measured
from prune_speedup.torch.measure import taken_by
from prune_speedup.torch.proof.compare import compare
from prune_speedup.torch.proof.masked_reference import Meaning
from prune_speedup.torch.record.case import Case
from prune_speedup.torch.record.recorder import trace
from prune_speedup.torch.report import SpeedupReport
from prune_speedup.torch.resize.as_it_is import is_sure_to_follow
from prune_speedup.torch.resize.smaller import corrections_of
from prune_speedup.torch.rules import has_rule
from prune_speedup.torch.saving import carries_config, follow, shapes_of
from prune_speedup.torch.shortfall import shortfall
from prune_speedup.torch.surgery import plain_attributes, record_surgery, shapes_of_tensors
from prune_speedup.torch.tensors import Snapshot
from prune_speedup.torch.unremoved import count_masked

__all__ = ["Asked", "shrunk"]


@dataclass(frozen=True, slots=True)
class Asked:
    """What `shrink` was asked for, checked: its arguments, but for the model.

    Attributes:
        masks: `{tensor name: bool mask}`.
        cutting: What makes the tensors smaller.
    """

    example_inputs: Any
    masks: Mapping[str, torch.Tensor]
    units: Iterable[Unit] | None
    constants: str
    verify: bool
    verify_inputs: Sequence[Any]
    tolerance: float | None
    measure: bool
    certificate: str | PathLike[str] | None
    cutting: Cutting


def shrunk(
    model: nn.Module, asked: Asked, before: Snapshot, *, yielding: bool, used: list[Analysis]
) -> SpeedupReport:
    """Do what was asked; where that fails, the model is not put back.

    Args:
        model: What is made smaller, in place.
        asked: What for.
        before: The model as it is now.
        yielding: Whether units that a forward cannot do without are left alone.
        used: Gets what analyses it is done by.
    """
    example_inputs, units, constants = asked.example_inputs, asked.units, asked.constants
    flat = asked.masks
    seconds: dict[str, float] = {}
    shapes = shapes_of(model) if carries_config(model) else None
    sizes, given = shapes_of_tensors(model), flat
    took = taken_by(model, flat)
    report = SpeedupReport(model)
    report.constants, report.seconds = constants, seconds
    references = [Reference.of(model, flat)] if asked.certificate is not None else []

    def recorded(also: Sequence[Case]) -> tuple[Standing, Zeros]:
        with timed(seconds, "trace"):
            if also:
                analysis = Analysis(trace(model, example_inputs, known=has_rule, also=also))
            else:
                analysis = analysis_of(model, example_inputs)
                used.append(analysis)
        with timed(seconds, "units"):
            labelling = analysis.labelling
        with timed(seconds, "plan"):
            zeros = {} if units is not None else zeros_of(model, analysis.graph, flat)
            return standing(labelling, zeros), zeros

    cases: Sequence[Case] = ()
    found, zeros = recorded(cases)
    with timed(seconds, "constants"):
        done = settle(model, example_inputs, found, flat, constants) if units is None else None
    if done is not None:
        flat = done.masks
        found, zeros = recorded(cases)
    wanted: Plan

    def planned(also: Sequence[Case]) -> Plan:
        nonlocal cases, found, zeros, wanted
        if list(also) != list(cases):
            cases = list(also)
            found, zeros = recorded(cases)
        with timed(seconds, "plan"):
            chosen: Iterable[int] = (
                found.removable
                if units is None
                else labels_of_units(found.labelling, units, skip=bool(also))
            )
            wanted = make_plan(found.labelling, chosen)
        return wanted

    original = before if done is None else Snapshot(model, before)
    if done is not None and asked.certificate is not None:
        references.append(Reference.of(model, flat, f"constants={constants!r} was applied first"))
    attributes = plain_attributes(model)
    fitting = Fitting(
        model, example_inputs, planned, flat, original, report, yielding, cutting=asked.cutting
    )
    small_graph = returned = flops = None
    if not asked.verify:
        plan = planned(())
        fitting.trusting = not used[-1].opaque and is_sure_to_follow(model, plan)
        with timed(seconds, "shrink"):
            plan, repairs = fitting.fit(plan)
            original.give_numbers()
    else:
        meant = Meaning(flat, units is not None)
        recording = asked.certificate is not None
        fitting.seen = not used[-1].opaque
        plan, repairs, proof = fitting.proved(
            asked.verify_inputs, meant, asked.tolerance, recording=recording
        )
        report.comparison, report.verified = proof.difference, proof.inputs
        report.inside, flops = proof.inside, proof.flops
        returned, small_graph = proof.returned, proof.recorded
    with timed(seconds, "config"):
        if shapes is not None:
            compared = asked.verify
            report.config = follow(
                model, example_inputs, shapes, compared=compared, returned=returned
            )
    report.corrections = [
        each for each in report.corrections if corrections_of(model.get_submodule(each[0]))
    ]
    if done is not None:
        report.moved = compare(done.as_given, masked_output(model, example_inputs, {})).relative
    if asked.measure:
        with timed(seconds, "measure"):
            report.running = measured(model, example_inputs, original)
    report.parameters, report.zeros, report.bytes = zip(took, taken_by(model), strict=True)
    labelling = plan.labelling
    graph = labelling.graph
    report.unknown, report.uncompared = dict(labelling.flow.unknown), sorted(set(graph.opaque))
    by_module = flops_by_module(plan)
    planned_flops = sum(by_module[1].values())
    report.flops = sum(by_module[0].values()), planned_flops if flops is None else flops
    report.gained = [name for name in named_parameters(model) if name not in sizes]
    record_surgery(model, attributes, sizes, report.config, repairs.attributes)
    if units is None:
        covered = asked_for(graph, zeros, given)
        report.asked, report.kept = count_masked(
            model, wanted, plan, found, covered, masks=bool(given)
        )
    describe(report, labelling, plan, flat)
    report.layers = layer_sizes(model, sizes, report.slices, attributes, by_module)
    report.shortfall = shortfall(report, masks=bool(given), units=units is not None)
    if asked.certificate is not None:
        if units is not None:
            references = [each.without(plan) for each in references]
        with timed(seconds, "certificate"):
            report.certificate = certify(
                asked.certificate, model, example_inputs, plan, references, small_graph
            )
    return report
