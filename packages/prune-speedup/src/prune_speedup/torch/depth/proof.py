"""Hold a model without some blocks to the whole one with those blocks skipped or at zero."""

from __future__ import annotations

import inspect
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from prune_core.errors import ConfigError, SpeedupError
from prune_speedup.torch.cost import flops_of
from prune_speedup.torch.depth.calls import Seen
from prune_speedup.torch.depth.flow import Addition
from prune_speedup.torch.depth.reference import Reference, skipping
from prune_speedup.torch.depth.steps import Step
from prune_speedup.torch.proof.cases import cases_of
from prune_speedup.torch.proof.compare import Difference, compare
from prune_speedup.torch.proof.two_states import (
    CaseError,
    TwoStates,
    Verdict,
    run_case,
    where_it_hardly_rounds,
)
from prune_speedup.torch.record.case import Case
from prune_speedup.torch.record.inputs import Found, arguments, call, found_in
from prune_speedup.torch.record.isolation import untouched
from prune_speedup.torch.record.recorder import Recorder
from prune_speedup.torch.rules import has_rule
from prune_speedup.torch.tensors import Snapshot
from prune_toolkit.running.restore import evaluating

__all__ = ["Meant", "Prover", "Verdict", "alike", "apart_with_cache"]


@dataclass(frozen=True, slots=True)
class Meant:
    """What is to be computed.

    Attributes:
        skipped: Modules whose output is to be their input.
        additions: Where branches are to add nothing.
        step: What was done, to know tensors by their new names.
    """

    skipped: Collection[str] = ()
    additions: Collection[Addition] = ()
    step: Step = field(default_factory=Step)


class Prover:
    """Runs a model in its two states and compares what it returns and keeps.

    Args:
        model: The model.
        original: What it was.
        seen: How its modules were used then.
        tolerance: The largest difference allowed; by default what rounding does.
    """

    def __init__(
        self,
        model: nn.Module,
        original: Snapshot,
        seen: Mapping[str, Seen],
        tolerance: float | None,
    ) -> None:
        self._model, self._original, self._seen = model, original, seen
        self._tolerance = tolerance
        self.flops = 0

    def cases(self, example_inputs: Any, more: Sequence[Any]) -> list[Case]:
        """Return the example, what the user gives, and every other way of running the model."""
        return cases_of(self._model, example_inputs, more, opened=False, repaired=True)

    def prove(self, cases: Sequence[Case], meant: Meant) -> Verdict:
        """Compare in each case that the whole model accepts.

        Raises:
            SpeedupError: They differ.
        """
        states: TwoStates[_Run] = TwoStates(self._model, self._original)

        def proved(
            cases: Sequence[Case], tolerance: float | None, dtype: torch.dtype | None
        ) -> Verdict:
            def hold(case: Case, expected: _Run) -> Difference:
                found = self._run_small(case, dtype)
                return self._held(case, expected, found, meant, tolerance)

            whole = states.expected(cases, dtype, lambda case: self._run_whole(case, meant, dtype))
            return states.held(whole, dtype, hold)

        try:
            return where_it_hardly_rounds(self._model, self._tolerance, cases, proved)
        finally:
            states.small.restore()

    def _run_whole(self, case: Case, meant: Meant, dtype: Any) -> _Run | None:
        recorder = Reference(self._model, meant.additions)
        try:
            with skipping(self._model, meant.skipped, self._seen):
                returned = run_case(recorder, case, dtype)
        except Exception as error:
            if case.required:
                raise ConfigError(
                    f"The model does not run on {case.name} without these blocks: "
                    f"{type(error).__name__}: {error}."
                ) from error
            return None
        if recorder.zeroed < len(meant.additions):
            if case.required:
                raise SpeedupError(
                    f"On {case.name} the forward adds up other branches than when it was looked "
                    "at; the model is left as it was."
                )
            return None
        kept = {
            new: value
            for name, value in recorder.changed.items()
            if (new := meant.step.now(name)) is not None
        }
        return _Run(found_in(returned), found_in(kept))

    def _run_small(self, case: Case, dtype: Any) -> _Run:
        recorder = Recorder(self._model, has_rule)
        try:
            returned = run_case(recorder, case, dtype)
        except Exception as error:
            raise SpeedupError(
                f"Without these blocks the model does not run on {case.name}: "
                f"{type(error).__name__}: {error}; it is left as it was."
            ) from error
        if case.name == "the example":
            self.flops = flops_of(recorder.graph)
        return _Run(found_in(returned), found_in(recorder.changed))

    def _held(
        self, case: Case, expected: _Run, found: _Run, meant: Meant, tolerance: float | None
    ) -> Difference:
        left, right = alike(expected.returned, found.returned)
        if not left.tensors and not left.plain:
            raise SpeedupError(
                f"On {case.name} the model returns nothing that could be compared; it is left as "
                "it was."
            )
        difference = compare(left, right, tolerance)
        kept = compare(*_common(expected.kept, found.kept), tolerance)
        for each, what in ((difference, "returns"), (kept, "keeps")):
            if not each.ok:
                raise CaseError(
                    case,
                    f"Without these blocks the model {what} something else than the whole model "
                    f"with them left out, on {case.name}: {each.where} differs by "
                    f"{each.relative:.2e} (relative), where {each.tolerance:.0e} is allowed; the "
                    "model is left as it was.",
                    runs=True,
                    rounds=each.rounds,
                )
        return difference


@dataclass(slots=True)
class _Run:
    returned: Found
    kept: Found


def alike(expected: Found, found: Found) -> tuple[Found, Found]:
    """Leave out caches, and lists with an entry for each layer, of which there are fewer now."""
    left, right = Found(), Found()
    for one, other, kind in (
        (expected.tensors, found.tensors, "tensors"),
        (expected.plain, found.plain, "plain"),
    ):
        lengths = [_lengths(each) for each in (one, other)]
        for source, target in ((one, left), (other, right)):
            for path, value in source.items():
                cached = any(path.startswith(cache) for cache in (*expected.caches, *found.caches))
                if not cached and all(lengths[0].get(r) == lengths[1].get(r) for r in _rows(path)):
                    getattr(target, kind)[path] = value
    return left, right


def _rows(path: str) -> list[str]:
    """The lists that a value stands in, apart from what the model returns as a whole."""
    return [path[: found.start()] for found in re.finditer(r"\[\d+\]", path) if found.start()]


def _lengths(paths: Iterable[str]) -> dict[str, set[str]]:
    """The places of each list that something stands in."""
    places: dict[str, set[str]] = defaultdict(set)
    for path in paths:
        for row in _rows(path):
            places[row].add(path[len(row) :].partition("]")[0])
    return places


def _common(expected: Found, found: Found) -> tuple[Found, Found]:
    left, right = Found(), Found()
    for path in expected.tensors.keys() & found.tensors.keys():
        left.tensors[path], right.tensors[path] = expected.tensors[path], found.tensors[path]
    return left, right


def apart_with_cache(model: nn.Module, example_inputs: Any) -> Difference | None:
    """Compare what a model returns for a sequence with what it returns when it goes on in it.

    The last step is run once with everything before it, and once with the cache that those before
    it have left, as `generate()` does.

    Returns:
        How far they are apart; None for a model that keeps no cache, or is not asked for one in a
        way that can be imitated.
    """
    with untouched(model), evaluating(model), torch.no_grad():
        returned = call(model, example_inputs)
        where = [path.lstrip(".[").rstrip("]").strip("'") for path in found_in(returned).caches]
        named = _named(model, example_inputs)
        if len(where) != 1 or named is None or where[0] in named:
            return None
        steps = _steps(named)
        if not steps:
            return None
        length = named[steps].shape[1]
        if length < 2:
            return None
        half = length - 1
        alike = [
            name
            for name, value in named.items()
            if isinstance(value, torch.Tensor)
            and value.shape == named[steps].shape
            and name.startswith("decoder_") == steps.startswith("decoder_")
        ]
        first = {**named, **{name: named[name][:, :half] for name in alike}}
        begun = call(model, {**first, "use_cache": True})
        cache = _item(begun, where[0])
        if cache is None:
            return None
        masks = [name for name in alike if name.endswith("mask")]
        rest = {**named, **{name: named[name][:, half:] for name in alike if name not in masks}}
        more = call(model, {**rest, where[0]: cache, "use_cache": True})
        whole, part = _scores(returned, length), _scores(more, length - half)
        if whole is None or part is None:
            return None
        return compare(whole[:, half:], part, max(1e-4, _cached(whole.dtype)))


def _cached(dtype: torch.dtype) -> float:
    return 4 * float(torch.finfo(dtype).eps) * 64 if dtype.is_floating_point else 0.0


def _named(model: nn.Module, example_inputs: Any) -> dict[str, Any] | None:
    args, kwargs = arguments(example_inputs)
    try:
        return dict(inspect.signature(model.forward).bind(*args, **kwargs).arguments) | kwargs
    except (TypeError, ValueError):
        return None


def _steps(named: Mapping[str, Any]) -> str:
    """The argument that holds the tokens that a cache is for: of a decoder, if there is one."""
    tokens = [
        name
        for name, value in named.items()
        if isinstance(value, torch.Tensor)
        and value.ndim == 2
        and not value.is_floating_point()
        and not name.endswith("mask")
    ]
    return next((n for n in tokens if n.startswith("decoder_")), next(iter(tokens), ""))


def _item(returned: Any, name: str) -> Any:
    if isinstance(returned, Mapping):
        return returned.get(name)
    if isinstance(returned, tuple) and name.isdigit():
        return returned[int(name)]
    return getattr(returned, name, None)


def _scores(returned: Any, length: int) -> torch.Tensor | None:
    """The first result with a row for each step."""
    for tensor in found_in(returned).tensors.values():
        if tensor.ndim == 3 and tensor.shape[1] == length:
            return tensor
    return None
