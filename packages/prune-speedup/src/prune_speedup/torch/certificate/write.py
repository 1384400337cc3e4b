"""Write the certificate of a model that was made smaller."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from time import perf_counter
from typing import Any

from torch import nn

from prune_core.errors import MissingDependencyError
from prune_core.files import replacing, write_safetensors
from prune_speedup.engine.graph import Graph
from prune_speedup.engine.plan import Plan
from prune_speedup.torch.certificate.program import Program, lower
from prune_speedup.torch.certificate.reference import (
    NoCertificateError,
    Numbers,
    Reference,
    numbers_of,
)
from prune_speedup.torch.certificate.side_by_side import SideBySide
from prune_speedup.torch.record.recorder import Recorder
from prune_speedup.torch.rules import has_rule

__all__ = ["Certificate", "Reference", "certify", "require_checker"]

ORIGINAL, SMALL, JSON = "original.safetensors", "small.safetensors", "certificate.json"


@dataclass(slots=True)
class Certificate:
    """What became of a certificate.

    Attributes:
        path: The file that was written; empty if there is none.
        reason: Why there is none: the operator for which the checker has no rule, or what does
            not follow.
        steps: How many steps it has.
        assumptions: What it takes for granted, in words.
        seconds: How long each part of writing it took.
    """

    path: str = ""
    reason: str = ""
    steps: int = 0
    assumptions: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.path}: {self.steps} steps" if self.path else f"none: {self.reason}"


def require_checker() -> None:
    """Say how to get the checker, before anything is done."""
    try:
        import prune_verify  # noqa: F401
    except ModuleNotFoundError:
        raise MissingDependencyError(
            "certificate=... checks each certificate before it is written, with the checker that "
            "others will use: `pip install prune-verify`."
        ) from None


def certify(
    path: str | PathLike[str],
    model: nn.Module,
    example_inputs: Any,
    plan: Plan,
    references: Sequence[Reference],
    recorded: Graph | None = None,
) -> Certificate:
    """Write a certificate that `model` computes what one of the masked models does.

    Args:
        path: A file that ends in .json, or a folder that gets the certificate and both models.
        model: The small model.
        example_inputs: What it is run on.
        plan: What was removed.
        references: The masked models, the one that is preferred first.
        recorded: A recording of the small model on the example, if there is one.
    """
    begin = perf_counter()
    found = Certificate()
    try:
        programs, remarks = _programs(model, example_inputs, plan, recorded)
        found.seconds["record"] = perf_counter() - begin
        for at, reference in enumerate(references):
            try:
                numbers = _numbers(programs[0], reference, model, found)
                begin = perf_counter()
                side_by_side = SideBySide(*programs, plan, numbers)
                content = side_by_side.content()
                found.seconds["check"] = perf_counter() - begin
                break
            except NoCertificateError:
                if at + 1 == len(references):
                    raise
    except NoCertificateError as error:
        found.reason = str(error)
        return found
    begin = perf_counter()
    content["assumptions"] = [*remarks, *filter(None, [reference.remark])]
    found.assumptions = side_by_side.taken_for_granted(content)
    content["model"] = type(model).__name__
    for which, tensors in zip(("original", "small"), numbers, strict=True):
        content[which] = {name: digest for name, (digest, _) in tensors.items()}
    path = Path(path)
    if path.suffix != ".json":
        path.mkdir(parents=True, exist_ok=True)
        _save(path, model, reference, content)
        path = path / JSON
    with replacing(path) as file:
        file.write((json.dumps(content, separators=(",", ":")) + "\n").encode())
    found.seconds["write"] = perf_counter() - begin
    found.path, found.steps = str(path), len(content["steps"])
    return found


def _programs(
    model: nn.Module, example_inputs: Any, plan: Plan, recorded: Graph | None
) -> tuple[tuple[Program, Program], list[str]]:
    """The programs of both models, and what is assumed of them."""
    graph = plan.labelling.graph
    if recorded is None:
        recorder = Recorder(model, has_rule, decisions=graph.decisions)
        recorder.run(example_inputs, again=False)
        recorded = recorder.graph
    small = recorded
    counts = len(small.inputs), len(small.outputs)
    programs = lower(graph, *counts), lower(small, *counts)
    remarks = []
    if small.decisions:
        remarks.append(
            f"The forward looks at numbers and decides by them, {len(small.decisions)} times, "
            "as where it looks for what is not zero: inputs that are decided otherwise are outside."
        )
    remarks += [
        f"It reads {what}, taken to be the same in both models."
        for what in sorted({*programs[0].loose.values()})
    ]
    if graph.again is not None:
        remarks.append("It keeps something for its next call: this is about the first call.")
    if graph.opaque:
        remarks.append(
            f"It returns {', '.join(sorted({*graph.opaque}))}, which is not looked into."
        )
    return programs, remarks


def _numbers(
    original: Program, reference: Reference, model: nn.Module, found: Certificate
) -> tuple[Numbers, Numbers]:
    """The tensors of both models that a program reads, with their hashes."""
    begin = perf_counter()
    names = [step.told["name"] for step in original.steps if step.op == "tensor"]
    here = dict([*model.named_parameters(remove_duplicate=False), *model.named_buffers()])
    numbers = (
        numbers_of({name: reference.masked(name) for name in names if name in reference.tensors}),
        numbers_of({name: here[name] for name in names}),
    )
    found.seconds["hash"] = perf_counter() - begin
    return numbers


def _save(folder: Path, model: nn.Module, reference: Reference, content: dict[str, Any]) -> None:
    """Write both models, each tensor once and under the name that the certificate has for it."""
    from prune_speedup.torch.surgery import content_of

    metadata, small = content_of(model)
    named = dict([*model.named_parameters(), *model.named_buffers()])
    small |= {n: named[n].detach().contiguous() for n in content["small"] if n not in small}
    state = {name: reference.masked(name).contiguous() for name in reference.tensors}
    for file_name, tensors, header in ((ORIGINAL, state, {}), (SMALL, small, metadata)):
        write_safetensors(folder / file_name, {n: t.cpu() for n, t in tensors.items()}, header)
