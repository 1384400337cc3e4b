"""An optimizer that was made before the model became smaller, and what it remembers.

The parameters stay the objects that they are, so an optimizer goes on training them. But momentum
and its like have a number for each number of a parameter, and still the old shapes. Which slices of
a parameter stayed is known, and the same slices of a momentum are the momentum of what stayed.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any
from weakref import WeakSet
from weakref import ref as weakref

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_pre_hook

from prune_core.errors import SpeedupError
from prune_core.masking import bare
from prune_core.traversal import named_parameters
from prune_speedup.torch.report import SpeedupReport

__all__ = ["check_optimizer", "expect_optimizers", "shrink_optimizer"]


def shrink_optimizer(optimizer: Any, report: SpeedupReport) -> None:
    """Let an optimizer that was made before `shrink` go on with the smaller model.

    What it keeps for each number of a parameter, such as momentum, loses the slices that the
    parameter has lost. Its groups keep their options, and a bias that a layer has gained is
    trained as the layer's weight is. An optimizer that was made after `shrink` is left as it is.

    Args:
        optimizer: Any optimizer that keeps, for a parameter, numbers and tensors of its shape.
        report: What `shrink` returned.

    Raises:
        SpeedupError: It trains none of the model's parameters, or keeps something of which
            nothing is known; it is left as it was.

    Example:
        >>> import prune_core
        >>> import torch
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> optimizer = torch.optim.Adam(model.parameters())
        >>> x = torch.randn(3, 4)
        >>> model(x).sum().backward()
        >>> optimizer.step()
        >>> found = prune_core.units(model, x)
        >>> chosen = [found.unit(label) for label in found.groups[0].labels[::2]]
        >>> report = prune_core.shrink(model, x, units=chosen)
        >>> prune_core.shrink_optimizer(optimizer, report)
        >>> optimizer.state[model[0].weight]["exp_avg"].shape
        torch.Size([4, 4])
    """
    with bare(report.model) as model:
        named = dict(model.named_parameters())
    trained = _trained(model, optimizer)
    before = {change.name: change.before for change in report.changes}
    news: list[tuple[dict[str, Any], str, Tensor]] = []
    for name, slices in report.slices.items():
        parameter = named.get(name)
        if parameter is None or id(parameter) not in trained:
            continue
        state = optimizer.state.get(parameter, {})
        for key, value in state.items():
            if isinstance(value, Tensor) and _shape(value) == before[name]:
                news.append((state, key, _cut(value, slices, parameter)))
            elif not _stays(value) and _shape(value) != tuple(parameter.shape):
                raise SpeedupError(_unknown(optimizer, name, key, value, before[name]))
    for state, key, value in news:
        state[key] = value
    for name in report.gained:
        _train_too(optimizer, named, name)


def check_optimizer(model: nn.Module, optimizer: Any) -> None:
    """Refuse an optimizer that could not follow, before anything is done to the model."""
    _trained(model, optimizer)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    for group in _groups(optimizer):
        for parameter in group["params"]:
            for key, value in optimizer.state.get(parameter, {}).items():
                shape = tuple(parameter.shape)
                if not _stays(value) and _shape(value) != shape:
                    name = names.get(id(parameter), "a parameter")
                    raise SpeedupError(_unknown(optimizer, name, key, value, shape))


def _trained(model: nn.Module, optimizer: Any) -> set[int]:
    trained = {id(parameter) for group in _groups(optimizer) for parameter in group["params"]}
    if not any(id(parameter) in trained for parameter in model.parameters()):
        raise SpeedupError(
            f"This {type(optimizer).__name__} trains no parameter of the model; another optimizer "
            "is meant, or a report whose model is a graph, which has parameters of its own."
        )
    return trained


def _groups(optimizer: Any) -> list[dict[str, Any]]:
    groups = getattr(optimizer, "param_groups", None)
    if not isinstance(groups, list) or not hasattr(optimizer, "state"):
        raise SpeedupError(
            f"optimizer is a {type(optimizer).__name__}; it must be an optimizer of torch."
        )
    return groups


def _shape(value: Any) -> tuple[int, ...] | None:
    return tuple(value.shape) if isinstance(value, Tensor) else None


def _stays(value: Any) -> bool:
    """Whether a value says nothing of single numbers of a parameter: a count of steps, a flag."""
    if isinstance(value, Tensor):
        return value.numel() <= 1
    return value is None or isinstance(value, int | float | str)


def _cut(value: Tensor, slices: dict[int, Tensor], parameter: Tensor) -> Tensor:
    for axis, indices in slices.items():
        value = value.index_select(axis, indices.to(value.device))
    if value.shape != parameter.shape:
        return value  # another report is to follow
    # In memory it lies as the parameter does, which some optimizers rely on.
    like = torch.empty_like(parameter, dtype=value.dtype, device=value.device)
    return like.detach().copy_(value)


def _train_too(optimizer: Any, named: dict[str, nn.Parameter], name: str) -> None:
    bias = named.get(name)
    weight = named.get(f"{name.removesuffix('bias')}weight")
    for group in _groups(optimizer):
        params = group["params"]
        if any(each is weight for each in params) and not any(each is bias for each in params):
            params.append(bias)


def _unknown(optimizer: Any, name: str, key: str, value: Any, shape: tuple[int, ...]) -> str:
    held = (
        f"of the shape {_shape(value)}"
        if isinstance(value, Tensor)
        else f"a {type(value).__name__}"
    )
    return (
        f"{type(optimizer).__name__} keeps {key!r} for {name!r}, {held}, and the parameter was "
        f"{shape} before it was made smaller; what of it would stay is not known. Make the "
        "optimizer anew, or give the report of each shrink() in turn."
    )


# --- an optimizer that nobody has told ------------------------------------------------------

_cut_parameters: dict[int, tuple[weakref[nn.Parameter], tuple[int, ...]]] = {}
_checked: WeakSet[Any] = WeakSet()
_handles: list[Any] = []


def expect_optimizers(report: SpeedupReport) -> None:
    """Tell the user of an optimizer that was forgotten, where torch would speak of shapes."""
    with bare(report.model) as model:
        named = named_parameters(model)
    for name, before in _cut_of(report):
        if (parameter := named.get(name)) is not None:
            identity = id(parameter)
            _cut_parameters[identity] = weakref(parameter, partial(_forget, identity)), before
    _checked.clear()
    if _cut_parameters and not _handles:
        _handles.append(register_optimizer_step_pre_hook(_before_a_step))


def _cut_of(report: SpeedupReport) -> Iterator[tuple[str, tuple[int, ...]]]:
    for change in report.changes:
        if change.before != change.after:
            yield change.name, change.before


def _forget(identity: int, _: Any) -> None:
    _cut_parameters.pop(identity, None)
    while _handles and not _cut_parameters:
        _handles.pop().remove()


def _before_a_step(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
    if optimizer in _checked:
        return
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            known = _cut_parameters.get(id(parameter))
            if known is None or id(known[0]()) != id(parameter):
                continue
            for key, value in optimizer.state.get(parameter, {}).items():
                if _shape(value) == known[1] != tuple(parameter.shape):
                    raise SpeedupError(
                        f"This {type(optimizer).__name__} was made before the model became "
                        f"smaller: its {key!r} has the shape {known[1]}, and the parameter has "
                        f"{tuple(parameter.shape)} now. Let it follow with "
                        "prune_core.shrink_optimizer(optimizer, report), or with "
                        "shrink(..., optimizer=optimizer), or make it anew."
                    )
    _checked.add(optimizer)
