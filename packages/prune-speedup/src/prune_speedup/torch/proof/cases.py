"""What a small model and the masked one are run on, beside the example."""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from types import CodeType, FunctionType
from typing import Any

import torch
from torch import nn

from prune_speedup.torch.record.case import Case
from prune_speedup.torch.record.inputs import arguments, tensors_in

__all__ = ["cases_of", "other_batch"]

_SHORT = 64
"""Up to how many steps or pixels along an axis inputs twice as long are tried."""

_FLAGS = 6


def cases_of(
    model: nn.Module, example_inputs: Any, more: Sequence[Any], *, opened: bool, repaired: bool
) -> list[Case]:
    """The example first, then what else is worth a look.

    Args:
        model: What is run.
        example_inputs: The example.
        more: Inputs that the user gives.
        opened: Whether the recording found everything once where the forward looks for something.
        repaired: Whether sizes were changed in attributes or in the source. If so, more is tried:
            other lengths, and arguments that are not given.
    """
    cases = [Case("the example", example_inputs, required=True)]
    cases += [Case(f"verify_inputs[{at}]", one, required=True) for at, one in enumerate(more)]
    name, inputs = other_batch(example_inputs)
    batch = None if inputs is None else Case(name, inputs)
    trains = repaired or asks_for_its_mode(model)
    if batch is not None and (repaired or not trains):
        cases.append(batch)
    if opened:
        name = "the example, with all that it looks for found"
        cases.append(Case(name, example_inputs, opened=True))
    if batch is not None and trains and not repaired:
        # One look at both: a model's mode has nothing to do with the size of its batch.
        cases.append(
            Case(f"{batch.name}, in training", batch.inputs, training=True, otherwise=batch)
        )
    elif trains:
        cases.append(Case("the example in training", example_inputs, training=True))
    if repaired:
        cases += _other_lengths(example_inputs)
        cases += _other_arguments(model, example_inputs)
    return cases


def asks_for_its_mode(model: nn.Module) -> bool:
    """Whether any class of the model, other than torch's own, reads whether it is training."""
    kinds = {base for module in model.modules() for base in type(module).__mro__}
    return any(
        _reads(function.__code__, "training")
        for kind in kinds
        if not kind.__module__.startswith("torch.") and kind is not object
        for function in vars(kind).values()
        if isinstance(function, FunctionType)
    )


def _reads(code: CodeType, name: str) -> bool:
    return name in code.co_names or any(
        isinstance(constant, CodeType) and _reads(constant, name) for constant in code.co_consts
    )


def other_batch(example_inputs: Any) -> tuple[str, Any]:
    """Inputs of another batch size, taken to be what the first axis of the first tensor is."""
    sizes = [tensor.shape[0] for _, tensor in tensors_in(example_inputs) if tensor.ndim]
    if not sizes or not sizes[0]:
        return "", None
    size = sizes[0]
    other = 3 if size == 2 else 2
    name = f"a batch of {other} where the example has {size}"
    return name, _resized(example_inputs, lambda tensor: (0,), size, other)


def _other_lengths(example_inputs: Any) -> Iterator[Case]:
    """Shorter and longer inputs, along the axes that are likely to be steps or places."""
    first = next((each for _, each in tensors_in(example_inputs) if each.ndim > 1), None)
    if first is None:
        return
    wanted: dict[int, list[tuple[int, ...]]] = {2: [(1,)], 3: [(1,), (2,)], 4: [(2, 3), (1, 2)]}
    for axes in wanted.get(first.ndim, [tuple(range(2, first.ndim))]):
        size = first.shape[axes[-1]]
        others = [size // 2] if size > 1 else []
        others += [size * 2] if size <= _SHORT else []
        for other in others:

            def along(tensor: torch.Tensor, axes: tuple[int, ...] = axes) -> tuple[int, ...]:
                same = tensor.ndim == first.ndim
                return axes if same else tuple(range(1, tensor.ndim))

            inputs = _resized(example_inputs, along, size, other)
            yield Case(f"{other} along axis {axes[-1]} where the example has {size}", inputs)


def _other_arguments(model: nn.Module, example_inputs: Any) -> Iterator[Case]:
    """The example with each argument that says yes or no, and is not given, the other way."""
    args, kwargs = arguments(example_inputs)
    try:
        signature = inspect.signature(model.forward)
        given = signature.bind_partial(*args, **kwargs).arguments
    except (TypeError, ValueError):
        return
    names = list(signature.parameters)
    flags = [
        parameter
        for parameter in signature.parameters.values()
        if parameter.name not in given
        and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        and (isinstance(parameter.default, bool) or _is_flag(parameter))
    ]
    for parameter in flags[:_FLAGS]:
        told = {**dict(zip(names, args, strict=False)), **kwargs}
        told[parameter.name] = not parameter.default
        yield Case(f"the example with {parameter.name}={told[parameter.name]}", told)


def _is_flag(parameter: inspect.Parameter) -> bool:
    """Whether an argument is a choice that is left open."""
    annotation = parameter.annotation
    return parameter.default is None and "bool" in str(annotation).replace("boolean", "")


def _resized(tree: Any, along: Any, size: int, other: int) -> Any:
    """The same inputs with another length along some axes of each tensor that have this one."""
    if isinstance(tree, torch.Tensor):
        for axis in along(tree):
            if axis < tree.ndim and tree.shape[axis] == size:
                places = torch.arange(other, device=tree.device) % size
                tree = tree.index_select(axis, places)
        return tree
    if isinstance(tree, Mapping):
        return {key: _resized(item, along, size, other) for key, item in tree.items()}
    if type(tree) in (list, tuple):
        return type(tree)(_resized(item, along, size, other) for item in tree)
    return tree
