"""Read the reports of the engines. Each is known by what it has, so that none is imported here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import prod
from typing import Any

from prune_core.errors import shown
from prune_report.document import (
    Change,
    Document,
    Experts,
    Indices,
    Latency,
    Layer,
    Proof,
    Removed,
    ReportError,
    Stayed,
    Timing,
)

__all__ = ["part_of"]


def part_of(report: Any) -> Document:
    """Return what one report of an engine says.

    Raises:
        ReportError: It is no such report.
    """
    if isinstance(report, Document):
        return report
    for marks, read in (
        (("slices", "kept", "verified"), _of_shrink),
        (("removed", "shortened", "stand_ins"), _of_blocks),
        (("trials", "depth", "width"), _of_both),
        (("changes", "held", "difference"), _of_keras),
    ):
        if all(hasattr(report, mark) for mark in marks):
            return read(report)
    raise ReportError(
        f"{shown(report)} is no report of a model made smaller; give what shrink(), "
        "remove_blocks(), remove_experts() or prune_tf.shrink() returned."
    )


def _of_shrink(report: Any) -> Document:
    """A `SpeedupReport` of prune-speedup."""
    running = report.running
    latency = activations = None
    if running is not None:
        before, after = (
            Timing(seconds, spread, running.runs)
            for seconds, spread in zip(running.seconds, running.spread, strict=True)
        )
        latency = Latency(before, after, _device(report.model), noisy=running.noisy)
        activations = _change(running.activations)
    return Document(
        title="",
        model=type(report.model).__name__,
        framework="torch",
        form=report.form,
        parameters=_change(report.parameters),
        flops=_change(report.flops) if any(report.flops) else None,
        bytes=_change(report.bytes),
        activations=activations,
        zeros=_change(report.zeros),
        latency=latency,
        proof=_proof(report),
        asked=report.asked,
        layers=tuple(
            Layer(
                each.name,
                each.type,
                Change(*each.parameters),
                _change(each.flops),
                _change(each.inputs),
                _change(each.outputs),
                Indices(each.removed),
            )
            for each in report.layers
        ),
        experts=tuple(
            Experts(name, Change(count, len(stay)), Indices(sorted({*range(count)} - {*stay})))
            for name, (count, stay) in report.experts.items()
        ),
        stayed=tuple(_stayed(report)),
        notes=tuple(_notes(report)),
        seconds=dict(report.seconds),
    )


def _proof(report: Any) -> Proof | None:
    compared = report.comparison
    if compared is None:
        return None
    return Proof(
        cases=tuple(report.verified),
        difference=float(compared.relative),
        tolerance=float(compared.tolerance),
        where=compared.where,
        inside=getattr(report, "inside", 0),
        uncompared=tuple(getattr(report, "uncompared", ())),
        unfollowed=tuple(
            f"{case}: {why}" for case, why in getattr(report, "unfollowed", {}).items()
        ),
        moved=float(getattr(report, "moved", 0.0)),
    )


def _stayed(report: Any) -> Iterator[Stayed]:
    """What stayed, each cause once, the most frequent first."""
    for kept in report.kept:
        yield Stayed(kept.cause, kept.remedy, kept.channels, tuple(kept.modules))
    for operator, module in report.unknown.items():
        yield Stayed(
            f"prune has no rule for the operator {operator}, so what it touches stays",
            "Register a rule for it, with the hook prune_register_rules",
            layers=(module,),
        )
    for place in report.returned:
        yield Stayed(
            f"the forward insists on its sizes, in {place}",
            "fallback=True shrinks the graph that torch.export makes of the model",
        )
    if report.masks and not report.kept:
        yield Stayed(
            "masks that cover single weights make layers sparse, not small",
            "Use an algorithm that prunes output channels, or a runtime for sparse weights",
            layers=tuple(report.masks),
        )


def _notes(report: Any) -> Iterator[str]:
    if report.shortfall and not report.changes:
        yield (
            "Nothing became smaller. “What stayed” says why, and what to do about it."
            if report.kept
            else report.shortfall
        )
    if report.comparison is None:
        yield (
            "The small model was not compared with the masked one: verify=False. "
            "Leave that out to have the two compared."
        )
    if report.form == "graph":
        yield (
            "The small model is a graph that torch.export made, since the model's own forward "
            f"could not follow: {report.cause}"
        )
    if report.config is not None and report.config.missing:
        yield (
            "The config of the model cannot describe the small one, so save it with "
            f"report.save(path) and not with save_pretrained: {report.config.missing}"
        )


def _of_blocks(report: Any) -> Document:
    """A `RemovalReport` of prune-speedup."""
    notes = []
    if report.missing:
        notes.append(f"The config of the model does not describe it: {report.missing}")
    if report.comparison is None:
        notes.append("The model without these blocks was not compared: verify=False.")
    return Document(
        title="",
        model=type(report.model).__name__,
        framework="torch",
        parameters=_change(report.parameters),
        flops=_change(report.flops) if any(report.flops) else None,
        bytes=_change(report.bytes),
        proof=_proof(report),
        blocks=tuple(
            Removed(each.name, each.kind, each.parameters, each.flops) for each in report.removed
        ),
        notes=tuple(notes),
        seconds={"blocks": report.seconds},
    )


def _of_both(report: Any) -> Document:
    """What `depth_and_width` returned: blocks that went, and then channels."""
    steps = [part_of(each) for each in (report.depth, report.width) if each is not None]
    return replace(
        steps[-1],
        parameters=_change(report.parameters),
        flops=_change(report.flops),
        bytes=_change(report.bytes),
        blocks=steps[0].blocks,
        notes=tuple(note for step in steps for note in step.notes),
        seconds={name: value for step in steps for name, value in step.seconds.items()},
    )


def _of_keras(report: Any) -> Document:
    """A `SpeedupReport` of prune-tf."""
    stayed = [
        Stayed(
            f"prune has no rule for the layer class {kind}, so channels around it stay",
            "Register a rule for it",
            layers=(name,),
        )
        for name, kind in report.unknown.items()
    ]
    if report.held:
        stayed.insert(
            0,
            Stayed(
                "their constant reaches the borders of a padded convolution",
                'constants="zero" lets them go',
                report.held,
            ),
        )
    notes = []
    proof = None
    if report.difference is None:
        notes.append("The small model was not compared with the masked one.")
    else:
        proof = Proof(("the example",), report.difference, moved=report.moved)
    return Document(
        title="",
        model=type(report.model).__name__,
        framework="keras",
        parameters=_change(report.parameters),
        proof=proof,
        layers=tuple(_keras_layers(report)),
        stayed=tuple(stayed),
        notes=tuple(notes),
    )


def _keras_layers(report: Any) -> Iterator[Layer]:
    before = {change.name: change.before for change in report.changes}
    for layer in report.model._flatten_layers(include_self=False):
        weights = list(getattr(layer, "_trainable_variables", ())) + list(
            getattr(layer, "_non_trainable_variables", ())
        )
        shapes = [
            (before.get(f"{layer.name}/{w.name}", tuple(w.shape)), tuple(w.shape)) for w in weights
        ]
        if not shapes:
            continue
        old, new = shapes[0]
        channels = _change((old[-1], new[-1])) if old else None
        inputs = _change((old[-2], new[-2])) if len(old) > 1 else None
        parameters = Change(sum(prod(a) for a, _ in shapes), sum(prod(b) for _, b in shapes))
        yield Layer(layer.name, type(layer).__name__, parameters, inputs=inputs, outputs=channels)


def _change(pair: Any) -> Change | None:
    return None if pair is None else Change(*pair)


def _device(model: Any) -> str:
    parameter = next(iter(model.parameters()), None)
    if parameter is None:
        return ""
    kind = str(parameter.device.type)
    if kind != "cpu":
        return kind
    import torch  # it is loaded: the model is one of its modules

    threads = torch.get_num_threads()
    return f"cpu, {threads} thread{'' if threads == 1 else 's'}"
