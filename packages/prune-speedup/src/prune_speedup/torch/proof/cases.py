"""What a small model and the masked one are run on, beside the example."""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any

import torch
from torch import nn

from prune_core.traversal import modules_in
from prune_speedup.torch.proof.made_up import made_up
from prune_speedup.torch.record.case import Case
from prune_speedup.torch.record.inputs import arguments, tensors_in
from prune_speedup.torch.record.own_code import mentions, own_functions

__all__ = ["cases_of", "other_batch"]

_SHORT = 64
"""Up to how many steps or pixels along an axis inputs twice as long are tried."""

_LARGE = 192
"""From how many pixels on a quarter of an image is tried first: every layer is met there as well,
and most of them have still more than one place to look at."""

_FLAGS = 6


def cases_of(
    model: nn.Module,
    example_inputs: Any,
    more: Sequence[Any],
    *,
    opened: bool,
    repaired: bool,
    asked: bool = True,
) -> list[Case]:
    """The example first, then what else is worth a look.

    Where nothing had to be repaired that is one look, at everything that may be otherwise at once:
    the batch, the length, the mode and what the forward is asked for; and, if the model has a
    forward of its own, one at a longer input. What a model does not accept of that is left out.

    Args:
        model: What is run.
        example_inputs: The example.
        more: Inputs that the user gives, or names of such as are made of the example.
        opened: Whether the recording found everything once where the forward looks for something.
        repaired: Whether sizes were changed in attributes or in the source. If so, all of it is
            looked at by itself.
        asked: Whether it is looked at, too, with the flags of the forward the other way.
    """
    example = Case("the example", example_inputs, required=True)
    cases = [example]
    for at, one in enumerate(more):
        by_name = isinstance(one, str)
        given = Case(f"verify_inputs[{at}]", one, required=True)
        cases += _by_name(one, example) if by_name else [given]
    if opened:
        name = "the example, with all that it looks for found"
        cases.append(Case(name, example_inputs, opened=True))
    flags = _flags(model, example_inputs) if asked else {}
    trains = asks_for_its_mode(model)
    optional = replace(example, required=False)
    if repaired:
        batch = _in_batch(optional)
        cases += [batch] if batch is not None else []
        cases.append(replace(optional, name="the example in training", training=True))
        cases += _in_length(optional)
        cases += [_with(model, optional, {name: value}) for name, value in flags.items()]
    else:
        cases += _at_once(model, example, flags, trains=trains)
        # The look at everything has a shorter input; some forwards do more on a longer one.
        cases += _longer(optional) if _has_own(model) else []
    return [*{each.name: each for each in cases}.values()]  # users may ask for the same


def _by_name(name: str, example: Case) -> list[Case]:
    """What users ask for by a name among the inputs that they give."""
    case = replace(example, required=False)
    if name == "training":
        return [replace(case, name="the example in training", training=True)]
    if name == "length":
        return [*_in_length(case)]
    said, inputs = made_up(name, example.inputs)
    return [replace(case, name=said, inputs=inputs)]


def _at_once(
    model: nn.Module, example: Case, flags: Mapping[str, bool], *, trains: bool
) -> list[Case]:
    """A case in which everything is otherwise, or as much of it as the model accepts."""
    batch = _in_batch(example) or example
    factors = _smaller(batch, trains=trains)
    tries = [
        replace(case, training=trains, name=f"{case.name}, in training" if trains else case.name)
        for size in (*islice(_in_length(batch, factors), len(factors)), batch)
        for case in ([_with(model, size, flags)] if flags else []) + [size]
        if case is not example or trains
    ]
    tries += [batch] if trains and batch is not example else []
    found: Case | None = None
    for case in reversed(tries):
        found = replace(case, required=False, otherwise=found)
    return [found] if found is not None else []


def _longer(case: Case) -> Iterator[Case]:
    """A longer input, if the example is short."""
    return islice(_in_length(case, [1.25 if _has_tokens(case) else 2.0]), 1)


def _smaller(case: Case, *, trains: bool) -> list[float]:
    """How much shorter inputs are tried, in this order.

    Any number of tokens will do; pixels may have to be halved. A batch norm that trains wants many
    of them, for over a few it rounds so much that all has to be looked at in double precision.
    """
    if _has_tokens(case):
        return [0.25]
    first = _first(case)
    is_large = first is not None and first.ndim > 3 and first.shape[-1] >= _LARGE
    return [0.25, 0.5] if is_large and not trains else [0.5]


def _has_tokens(case: Case) -> bool:
    first = _first(case)
    return first is not None and first.ndim == 2


def _first(case: Case) -> torch.Tensor | None:
    """The first tensor that has more than an axis of rows."""
    return next((each for _, each in tensors_in(case.inputs) if each.ndim > 1), None)


def _has_own(model: nn.Module) -> bool:
    """Whether a forward was written by somebody else than torch."""
    return any(not type(module).__module__.startswith("torch.") for module in modules_in(model))


def asks_for_its_mode(model: nn.Module) -> bool:
    """Whether the model's own code reads whether it is training, or is told so."""
    return any(
        each.__name__ == "train" or mentions(each.__code__, "training")
        for each in own_functions(model)
    )


def other_batch(example_inputs: Any) -> tuple[str, Any]:
    """Inputs of another batch size, taken to be what the first axis of the first tensor is."""
    sizes = [tensor.shape[0] for _, tensor in tensors_in(example_inputs) if tensor.ndim]
    if not sizes or not sizes[0]:
        return "", None
    size = sizes[0]
    # Of two numbers a batch norm makes 1 and -1, whatever they are, which rounding turns over.
    other = {1: 2, 3: 4}.get(size, 3)
    name = f"a batch of {other} where the example has {size}"
    return name, _resized(example_inputs, lambda tensor: (0,), size, partial(_rows, other))


def _in_batch(case: Case) -> Case | None:
    name, inputs = other_batch(case.inputs)
    return None if inputs is None else replace(case, name=_joined(case, name), inputs=inputs)


def _in_length(case: Case, factors: Sequence[float] = (0.5, 2.0)) -> Iterator[Case]:
    """Shorter and longer inputs, along the axes that are likely to be steps or places."""
    first = _first(case)
    if first is None:
        return
    wanted: dict[int, list[tuple[int, ...]]] = {2: [(1,)], 3: [(1,), (2,)], 4: [(2, 3), (1, 2)]}
    for axes in wanted.get(first.ndim, [tuple(range(2, first.ndim))]):
        size = first.shape[axes[-1]]
        others = [
            max(1, int(size * factor)) if factor < 1 else max(size + 1, int(size * factor))
            for factor in factors
            if factor < 1 or size <= _SHORT
        ]
        for other in others:
            if other == size:
                continue

            def along(tensor: torch.Tensor, axes: tuple[int, ...] = axes) -> tuple[int, ...]:
                same = tensor.ndim == first.ndim
                return axes if same else tuple(range(1, tensor.ndim))

            inputs = _resized(case.inputs, along, size, partial(_repeated, other))
            name = f"{other} along axis {axes[-1]} where the example has {size}"
            yield replace(case, name=_joined(case, name), inputs=inputs)


def _joined(case: Case, more: str) -> str:
    return more if case.name == "the example" else f"{case.name}, {more}"


def _flags(model: nn.Module, example_inputs: Any) -> dict[str, bool]:
    """The arguments that say yes or no, and are not given, each the other way."""
    args, kwargs = arguments(example_inputs)
    try:
        signature = inspect.signature(model.forward)
        given = signature.bind_partial(*args, **kwargs).arguments
    except (TypeError, ValueError):
        return {}
    flags = {
        parameter.name: not parameter.default
        for parameter in signature.parameters.values()
        if parameter.name not in given
        and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        and (isinstance(parameter.default, bool) or _is_open(parameter))
    }
    return dict(list(flags.items())[:_FLAGS])


def _is_open(parameter: inspect.Parameter) -> bool:
    """Whether an argument is a choice that is left to the model."""
    return parameter.default is None and "bool" in str(parameter.annotation)


def _with(model: nn.Module, case: Case, flags: Mapping[str, bool]) -> Case:
    """The case with some more arguments."""
    args, kwargs = arguments(case.inputs)
    names = inspect.signature(model.forward).parameters
    told = {**dict(zip(names, args, strict=False)), **kwargs, **flags}
    said = ", ".join(f"{name}={value}" for name, value in flags.items())
    return replace(case, name=f"{case.name} with {said}", inputs=told, asks=said)


def _rows(count: int, tensor: torch.Tensor, axis: int) -> torch.Tensor:
    """So many rows of a batch; those that it has not are its first ones, mirrored.

    The same rows once more are nothing to a batch norm in training: what all of them agree on it
    divides by next to nothing. An image is mirrored, or the order of steps. Columns of a table stay
    where they are, for each may have numbers of its own kind.
    """
    more = tensor.narrow(axis, 0, max(0, count - tensor.shape[axis]))
    if tensor.is_floating_point() and tensor.ndim > 2:
        more = more.flip(1 if tensor.ndim == 3 else -1)
    return torch.cat([tensor.narrow(axis, 0, min(count, tensor.shape[axis])), more], axis)


def _repeated(length: int, tensor: torch.Tensor, axis: int) -> torch.Tensor:
    """So much of a tensor along an axis, from the beginning again where it is too short."""
    places = torch.arange(length, device=tensor.device) % tensor.shape[axis]
    return tensor.index_select(axis, places)


def _resized(tree: Any, along: Any, size: int, change: Any) -> Any:
    """The same inputs, changed along some axes of each tensor that have this length."""
    if isinstance(tree, torch.Tensor):
        for axis in along(tree):
            if axis < tree.ndim and tree.shape[axis] == size:
                tree = change(tree, axis)
        return tree
    if isinstance(tree, Mapping):
        return {key: _resized(item, along, size, change) for key, item in tree.items()}
    if type(tree) in (list, tuple):
        return type(tree)(_resized(item, along, size, change) for item in tree)
    return tree
