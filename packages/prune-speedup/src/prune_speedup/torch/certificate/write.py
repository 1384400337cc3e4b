"""Write the certificate of a model that was made smaller."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from prune_core.errors import MissingDependencyError
from prune_core.files import replacing
from prune_speedup.engine.plan import Plan
from prune_speedup.torch.certificate.program import Program, Step, lower
from prune_speedup.torch.record.recorder import Recorder
from prune_speedup.torch.rules import has_rule

if TYPE_CHECKING:
    from prune_verify.checker import Value

__all__ = ["Certificate", "Reference", "certify", "require_checker"]

ORIGINAL, SMALL, JSON = "original.safetensors", "small.safetensors", "certificate.json"
Tensors = Mapping[str, torch.Tensor]


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


@dataclass(slots=True)
class Reference:
    """The masked model that a certificate starts from.

    Attributes:
        tensors: Its parameters and buffers, before any mask.
        masks: `{tensor name: bool mask}`.
        remark: What was done to the model that was given to get there, in words.
    """

    tensors: Tensors
    masks: Tensors
    remark: str = ""

    @classmethod
    def of(cls, model: nn.Module, masks: Tensors, remark: str = "") -> "Reference":
        """The model as it is now; nothing is copied."""
        named = (*model.named_parameters(), *model.named_buffers())
        return cls({name: tensor.data for name, tensor in named}, dict(masks), remark)

    def masked(self, name: str) -> torch.Tensor:
        """A tensor with its mask."""
        tensor, mask = self.tensors[name], self.masks.get(name)
        return tensor if mask is None else tensor * mask.to(tensor.device, tensor.dtype)

    def without(self, plan: Plan) -> "Reference":
        """The same, where the parameters' slices that a plan removes are masked as well."""
        graph, masks = plan.labelling.graph, dict(self.masks)
        for value in graph.parameters:
            for axis, kept in plan.kept(value).items():
                name = next(n for n in graph.tensors[value] if n in self.tensors)
                size = self.tensors[name].shape
                stay = torch.zeros(size[axis], dtype=torch.bool)
                stay[torch.from_numpy(kept)] = True
                along = stay.view([-1 if at == axis else 1 for at in range(len(size))])
                masks[name] = masks.get(name, torch.ones(size, dtype=torch.bool)) & along
        return Reference(self.tensors, masks, self.remark)


class NoCertificateError(Exception):
    """What the vocabulary cannot say, or the checker does not follow."""


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
) -> Certificate:
    """Write a certificate that `model` computes what one of the masked models does.

    Args:
        path: A file that ends in .json, or a folder that gets the certificate and both models.
        model: The small model.
        example_inputs: What it is run on.
        plan: What was removed.
        references: The masked models, the one that is preferred first.
    """
    begin = perf_counter()
    found = Certificate()
    try:
        programs, remarks = _programs(model, example_inputs, plan)
        found.seconds["record"] = perf_counter() - begin
        for at, reference in enumerate(references):
            try:
                content, numbers = _content(*programs, plan, reference, model, found)
                break
            except NoCertificateError:
                if at + 1 == len(references):
                    raise
    except NoCertificateError as error:
        found.reason = str(error)
        return found
    found.assumptions = [*remarks, *filter(None, [reference.remark])]
    begin = perf_counter()
    content["assumptions"] = found.assumptions
    content["model"] = type(model).__name__
    for which, (digests, _) in zip(("original", "small"), numbers, strict=True):
        content[which] = digests
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
    model: nn.Module, example_inputs: Any, plan: Plan
) -> tuple[tuple[Program, Program], list[str]]:
    """The programs of both models, and what is assumed of them."""
    recorder = Recorder(model, has_rule)
    recorder.run(example_inputs, again=False)
    small, graph = recorder.graph, plan.labelling.graph
    counts = len(small.inputs), len(small.outputs)
    programs = lower(graph, *counts), lower(small, *counts)
    shapes = [graph.metas[index].shape for index in dict.fromkeys(graph.inputs[: counts[0]])]
    sizes = ", ".join("×".join(map(str, shape)) or "a number" for shape in shapes)
    remarks = [
        "The steps are what both models compute, in eval mode, on inputs of these sizes: "
        f"{sizes}. They were recorded on one input.",
        "Numbers are real: where one that was removed is multiplied by zero, it is finite. Sums "
        "may run in another order.",
    ]
    if small.decisions:
        remarks.append(
            f"The forward looks at numbers and decides by them, {len(small.decisions)} times, "
            "as where it looks for what is not zero: inputs that are decided otherwise are outside."
        )
    remarks += [
        f"It reads {what}, which is taken to be the same in both models."
        for what in sorted({*programs[0].loose.values()})
    ]
    if graph.again is not None:
        remarks.append("It keeps something for its next call: this is about the first call.")
    if graph.opaque:
        remarks.append(
            f"It returns {', '.join(sorted({*graph.opaque}))}, which is not looked into."
        )
    return programs, remarks


def _content(
    original: Program,
    small: Program,
    plan: Plan,
    reference: Reference,
    model: nn.Module,
    found: Certificate,
) -> tuple[dict[str, Any], Any]:
    """The certificate without its assumptions; each step is checked as it is written."""
    begin = perf_counter()
    names = [step.told["name"] for step in original.steps if step.op == "tensor"]
    here = dict([*model.named_parameters(remove_duplicate=False), *model.named_buffers()])
    numbers = (
        _numbers({name: reference.masked(name) for name in names if name in reference.tensors}),
        _numbers({name: here[name] for name in names}),
    )
    found.seconds["hash"] = perf_counter() - begin
    begin = perf_counter()
    writer = _Writer(original, small, plan, numbers)
    content = writer.content()
    found.seconds["check"] = perf_counter() - begin
    return content, [({n: digest for n, (digest, _) in each.items()}, each) for each in numbers]


class _Writer:
    """Puts two programs side by side, and lets the checker follow."""

    def __init__(self, original: Program, small: Program, plan: Plan, numbers: Any) -> None:
        from prune_verify.checker import Checker

        self.original, self.small, self.plan = original, small, plan
        self.numbers = numbers
        self.checker: Checker = Checker(*numbers)
        self.claims: list[dict[str, Any]] = []
        self.at: dict[int, int] = {}  # values of the original's program, by their new numbers
        self.beside: dict[int, int] = {}  # the small program's values, as the original's

    def content(self) -> dict[str, Any]:
        """All steps."""
        from prune_verify.checker import Rejected

        steps: list[dict[str, Any]] = []
        for position, (step, other) in enumerate(self._pairs()):
            try:
                steps.append(self._step(position, step, other))
            except (Rejected, ValueError, IndexError) as error:
                unruled = self.original.unruled.get(step.outs[0])
                why = f"the checker has no rule for {unruled}: " if unruled else ""
                raise NoCertificateError(f"{why}{step.source}: {error}") from error
        outputs = [self.at[value] for value in self.original.outputs]
        if [self.beside.get(v) for v in self.small.outputs] != self.original.outputs:
            raise NoCertificateError("the two models return other values")
        for value in outputs:
            if self.checker.values[value].cut():
                raise NoCertificateError("an output is smaller than that of the original")
        return {
            "format": "prune-certificate",
            "version": 1,
            "values": self.claims,
            "steps": steps,
            "outputs": outputs,
        }

    def _pairs(self) -> Iterable[tuple[Step, Step]]:
        one, two = self.original.steps, self.small.steps
        for step, other in zip(one, two, strict=False):
            same = step.op == other.op and len(step.outs) == len(other.outs)
            ins = [self.beside.get(value) for value in other.ins]
            if not same or ins != step.ins:
                raise NoCertificateError(
                    f"the small model computes something else than the original from {step.source} "
                    f"on ({other.source})"
                )
            self.beside.update(zip(other.outs, step.outs, strict=True))
            yield step, other
        if len(one) != len(two):
            raise NoCertificateError("one of the models makes more calls than the other")

    def _step(self, position: int, step: Step, other: Step) -> dict[str, Any]:
        from prune_verify.checker import value_of

        told, small = dict(step.told), dict(other.told)
        ins = [self.at[value] for value in step.ins]
        values = [self.checker.values[value] for value in ins]
        if step.op == "along" and told["function"] in _OVER:
            self._over(told, small, values[0])
        if step.op == "tensor":
            self._folded(step, told, small)
        guesses = []
        for at, (value, beside) in enumerate(zip(step.outs, other.outs, strict=True)):
            sizes = self.original.shapes[value], self.small.shapes[beside]
            kept = self._kept(position, step, other, value, sizes, values, at)
            guesses.append(value_of(sizes[0], kept))
        written: dict[str, Any] = {"op": step.op, "in": ins, "out": [], "from": step.source}
        if told:
            written["with"] = told
        if differ := {key: each for key, each in small.items() if told.get(key) != each}:
            written["small"] = differ
        made = self.checker.derive(written, guesses)
        for result, value, beside in zip(made, step.outs, other.outs, strict=False):
            if _small(result) != self.small.shapes[beside]:
                raise NoCertificateError(
                    f"{step.source}: the small model's result is {self.small.shapes[beside]}, and "
                    f"what is kept is {_small(result)}"
                )
            self.at[value] = len(self.claims)
            written["out"].append(len(self.claims))
            self.checker.values[len(self.claims)] = result
            self.claims.append(claim_of(result))
        return written

    def _folded(self, step: Step, told: dict[str, Any], small: dict[str, Any]) -> None:
        """Whether a bias has taken up constants, so that it is no part of the original's."""
        name = told["name"]
        before, now = self.numbers[0].get(name), self.numbers[1][name][1]
        if before is None:
            told["fold"] = small["fold"] = "gained"
        elif now.ndim == 1 and now.dtype.kind == "f":
            kept = self._kept_of_tensor(step.outs[0], before[1].shape)
            if not np.array_equal(before[1][kept[0]], now):
                told["fold"] = small["fold"] = "changed"

    def _over(self, told: dict[str, Any], small: dict[str, Any], value: "Value") -> None:
        cut = {*value.cut()} & {*told["axes"]}
        if cut:
            told["over"] = {str(axis): ranges_of(value.kept[axis]) for axis in sorted(cut)}
            small["over"] = told["over"]

    def _kept_of_tensor(self, value: int, shape: Sequence[int]) -> tuple[Any, ...]:
        kept = [np.arange(size) for size in shape]
        for axis, indices in self.plan.kept(self.original.recorded[value]).items():
            kept[axis] = indices
        return tuple(kept)

    def _kept(
        self,
        position: int,
        step: Step,
        other: Step,
        value: int,
        sizes: Any,
        values: list["Value"],
        at: int,
    ) -> tuple[Any, ...]:
        """Which indices are kept of a value, where no rule says it."""
        shape, small = sizes
        if step.op == "tensor":
            return self._kept_of_tensor(value, shape)
        whole = tuple(np.arange(size) for size in shape)
        if shape == small or step.op not in ("move", "fill"):
            return whole
        if step.op == "move":
            return self._moved(values[0], step.told["moves"], shape)
        flow = self.plan.labelling.flow
        recorded = self.original.recorded.get(value)
        if recorded is not None and recorded in flow.values:
            known = self.plan.kept_of_value(recorded)
            if tuple(len(known.get(a, range(n))) for a, n in enumerate(shape)) == small:
                return tuple(known.get(axis, whole[axis]) for axis in range(len(shape)))
        kept = list(whole)
        for each in self.original.steps[position + 1 :]:
            if value in each.ins:
                if each.op == "matmul" and value == each.ins[0] and each.ins[1] in self.at:
                    right = self.checker.values[self.at[each.ins[1]]]
                    kept[-1] = right.kept[-2]
                    break
                beside = [self.checker.values[self.at[v]] for v in each.ins if v in self.at]
                for axis in range(len(shape)):
                    if shape[axis] != small[axis]:
                        kept[axis] = next(
                            (
                                b.kept[axis - len(shape)]
                                for b in beside
                                if len(b.shape) >= len(shape) - axis
                                and b.shape[axis - len(shape)] == shape[axis]
                            ),
                            kept[axis][: small[axis]],
                        )
                break
        return tuple(kept)

    def _moved(self, value: "Value", moves: Any, shape: Sequence[int]) -> tuple[Any, ...]:
        """The indices at which anything that is kept arrives."""
        from prune_verify.checker import MOVES

        mask = np.zeros(value.shape, bool)
        mask[np.ix_(*value.kept)] = True
        for name, *told in moves:
            mask = MOVES[name](mask, *told)
        axes = range(len(shape))
        return tuple(
            np.flatnonzero(mask.any(tuple(other for other in axes if other != axis)))
            for axis in axes
        )


_OVER = {"mean", "var", "var_mean", "normalise", "rms_normalise"}


def _small(value: "Value") -> tuple[int, ...]:
    """The shape of a value in the small model."""
    return tuple(map(len, value.kept))


def ranges_of(indices: Any) -> list[list[int]]:
    """Rising numbers as ranges: 0, 1, 5 is `[[0, 2], [5, 6]]`."""
    indices = np.asarray(indices)
    breaks = np.flatnonzero(np.diff(indices) != 1)
    starts = indices[np.concatenate([[0], breaks + 1])] if len(indices) else []
    stops = indices[np.concatenate([breaks, [-1]])] if len(indices) else []
    return [[int(start), int(stop) + 1] for start, stop in zip(starts, stops, strict=True)]


def claim_of(value: "Value") -> dict[str, Any]:
    """What a certificate says of a value: what is kept, and what is known of the rest."""
    claim: dict[str, Any] = {"shape": list(value.shape)}
    known = value.known
    for axis in value.cut():
        claim.setdefault("kept", {})[str(axis)] = ranges_of(value.kept[axis])
        gone = np.setdiff1d(np.arange(value.shape[axis]), value.kept[axis])
        others = tuple(other for other in range(known.ndim) if other != axis)
        zero = (known == 0).all(others)
        constant = ~np.isnan(known).any(others) & ~zero
        for what, flags in (("zero", zero), ("constant", constant)):
            flags = np.broadcast_to(flags, (value.shape[axis],))
            if (found := gone[flags[gone]]).size:
                claim.setdefault(what, {})[str(axis)] = ranges_of(found)
    return claim


_CODES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8",
    torch.uint8: "U8", torch.bool: "BOOL", torch.complex64: "C64",
}  # fmt: skip


def _numbers(tensors: Tensors) -> dict[str, tuple[str, Any]]:
    """Tensors as the checker reads them from a file."""
    found = {}
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu().contiguous()
        if tensor.dtype not in _CODES:
            raise NoCertificateError(
                f"{name} is of type {tensor.dtype}, which the checker cannot read"
            )
        raw = tensor.view(torch.int16) if tensor.dtype == torch.bfloat16 else tensor
        digest = hashlib.sha256(f"{_CODES[tensor.dtype]}{list(tensor.shape)}".encode())
        digest.update(raw.reshape(-1).numpy().data)
        array = tensor.float() if tensor.dtype == torch.bfloat16 else tensor
        found[name] = digest.hexdigest(), array.numpy()
    return found


def _save(folder: Path, model: nn.Module, reference: Reference, content: dict[str, Any]) -> None:
    """Write both models, each tensor once and under the name that the certificate has for it."""
    from safetensors.torch import save

    from prune_speedup.torch.surgery import content_of

    metadata, small = content_of(model)
    named = dict([*model.named_parameters(), *model.named_buffers()])
    small |= {n: named[n].detach().contiguous() for n in content["small"] if n not in small}
    state = {name: reference.masked(name).contiguous() for name in reference.tensors}
    for file_name, tensors, header in ((ORIGINAL, state, {}), (SMALL, small, metadata)):
        with replacing(folder / file_name) as file:
            file.write(save({n: t.cpu() for n, t in tensors.items()}, header or None))
