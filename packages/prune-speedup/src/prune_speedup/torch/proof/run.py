"""Run the small model and the masked one on the same inputs, and hold them to each other."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from prune_core.errors import ConfigError, PruneError, SpeedupError
from prune_speedup.engine.plan import Plan
from prune_speedup.torch.cost import flops_of
from prune_speedup.torch.proof.compare import IN_DOUBLE, Difference, compare, single, widen, widened
from prune_speedup.torch.proof.masked_reference import Meaning, masked_outputs
from prune_speedup.torch.record.data_dependent import agree
from prune_speedup.torch.record.inputs import tensors_in
from prune_speedup.torch.record.recorder import Recorder
from prune_speedup.torch.rules import has_rule
from prune_speedup.torch.tensors import Snapshot

__all__ = ["Proof", "other_batch", "prove"]


class Proof(NamedTuple):
    """What was seen.

    Attributes:
        difference: The largest between the two models, weighed by what is allowed.
        inputs: What both models were run on, for people.
        flops: Of the small model, on the example.
    """

    difference: Difference
    inputs: list[str]
    flops: int


def prove(
    model: nn.Module,
    example_inputs: Any,
    more_inputs: Sequence[Any],
    plan: Plan,
    meant: Meaning,
    original: Snapshot,
    tolerance: float | None,
) -> Proof:
    """Compare a small model with what its masks mean.

    Besides the example and what the user gives, both are run on a batch of another size, made of
    the example's own samples, if the original takes one.

    Args:
        model: The small model; it is left as it is.
        example_inputs: What it was traced with.
        more_inputs: Other inputs of the same form.
        plan: What was removed.
        meant: What counts as masked.
        original: The model before.
        tolerance: The largest difference allowed; by default what rounding does.

    Raises:
        SpeedupError: They differ.
        ConfigError: The original does not run on inputs that the user gave.
    """
    cases = {"the example": example_inputs}
    cases |= {f"verify_inputs[{at}]": inputs for at, inputs in enumerate(more_inputs)}
    batch, other = other_batch(example_inputs)
    if other is not None:
        cases[batch] = other
    small = Snapshot(model)
    try:
        return _proof(model, cases, batch, plan, meant, original, tolerance)
    except _ApartError:
        if tolerance is not None or not single(model):
            raise
    small.restore()
    wide = {name: widened(inputs) for name, inputs in cases.items()}
    return _proof(model, wide, batch, plan, meant, original, IN_DOUBLE, prepare=widen)


class _ApartError(SpeedupError):
    """The two models returned different numbers."""


def _proof(
    model: nn.Module,
    cases: Mapping[str, Any],
    batch: str,
    plan: Plan,
    meant: Meaning,
    original: Snapshot,
    tolerance: float | None,
    *,
    prepare: Callable[[nn.Module], None] = lambda model: None,
) -> Proof:
    """`prove`, with each model prepared before it runs; the small one is there again if it held."""
    small = Snapshot(model)
    prepare(model)
    decisions = plan.labelling.graph.decisions
    recorder = Recorder(model, has_rule, decisions=decisions)
    found = {"the example": recorder.run(cases["the example"])}
    found |= {name: _tried(model, cases[name]) for name in cases.keys() - found.keys()}
    original.restore()
    prepare(model)
    worst: Difference | None = None
    seen: list[str] = []
    for name, inputs in cases.items():
        # The recording's decisions are good for the example; other inputs make their own.
        forced = decisions if name == "the example" else None
        try:
            expected, decided = masked_outputs(model, inputs, plan, meant, forced)
        except Exception as error:
            if name == batch:
                continue
            if isinstance(error, PruneError):
                raise
            raise ConfigError(
                f"The model does not run on {name}: {type(error).__name__}: {error}. Give inputs "
                "that model(...) accepts, in the form of the example."
            ) from error
        seen.append(name)
        if name == "the example" and not agree(decided, recorder.graph.decisions):
            raise SpeedupError(
                "The small model decides otherwise than the masked one, in a choice that its "
                "forward makes by looking at numbers; the model is left as it was."
            )
        difference = _compared(name, expected, found[name], tolerance)
        if worst is None or difference.weight > worst.weight:
            worst = difference
    small.restore()
    assert worst is not None
    return Proof(worst, seen, flops_of(recorder.graph))


def _tried(model: nn.Module, inputs: Any) -> Any:
    """What a model returns, or the error that it raises."""
    try:
        return Recorder(model, has_rule).run(inputs)
    except Exception as error:
        return error


def _compared(name: str, expected: Any, found: Any, tolerance: float | None) -> Difference:
    if isinstance(found, Exception):
        raise SpeedupError(
            f"The small model does not run on {name}, where the masked one does: "
            f"{type(found).__name__}: {found}; the model is left as it was."
        ) from found
    difference = compare(expected, found, tolerance)
    if not difference.ok:
        on = "" if name == "the example" else f" of {name}"
        raise _ApartError(
            f"The small model differs from the masked one by {difference.relative:.2e} "
            f"(relative) in {difference.where}{on}, where "
            f"{difference.tolerance:.0e} is allowed; the model is left as it was."
        )
    return difference


def other_batch(example_inputs: Any) -> tuple[str, Any]:
    """Inputs of another batch size, taken to be what the first axis of the first tensor is."""
    sizes = [tensor.shape[0] for _, tensor in tensors_in(example_inputs) if tensor.ndim]
    if not sizes or not sizes[0]:
        return "", None
    size = sizes[0]
    other = 3 if size == 2 else 2
    name = f"a batch of {other} where the example has {size}"
    return name, _resized(example_inputs, size, other)


def _resized(tree: Any, size: int, other: int) -> Any:
    if isinstance(tree, torch.Tensor):
        if not tree.ndim or tree.shape[0] != size:
            return tree
        return tree[torch.arange(other, device=tree.device) % size]
    if isinstance(tree, Mapping):
        return {key: _resized(item, size, other) for key, item in tree.items()}
    if type(tree) in (list, tuple):
        return type(tree)(_resized(item, size, other) for item in tree)
    return tree
