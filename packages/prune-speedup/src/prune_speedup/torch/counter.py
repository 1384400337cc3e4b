"""Count what a model holds and what its forward does, layer by layer."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from prune_core.compressed import model_of
from prune_core.errors import ConfigError, PruneWarning
from prune_core.masking import PrunerModuleWrapper
from prune_speedup.torch.record.kernels import plain_kernels
from prune_toolkit.running.restore import evaluating

__all__ = ["Counted", "count_flops_params"]


class Counted(NamedTuple):
    """What `count_flops_params` returns.

    Attributes:
        flops: Multiply-adds of one sample.
        params: Values in the parameters, less those that are masked.
        results: A dict for each layer: `name`, `module_type`, `weight_shape`, `flops`, `params`.
    """

    flops: int
    params: int
    results: list[dict[str, Any]]


def count_flops_params(
    model: nn.Module,
    x: Any,
    custom_ops: Any = None,
    verbose: bool = True,
    mode: str = "default",
) -> Counted:
    """Count the multiply-adds and the parameters of a model, as scripts for the predecessor do.

    A multiply-add counts as one, and a batch as one sample; the reports of `shrink` count as torch
    does, two for each, over the whole batch. Where a model is wrapped, masked filters and weights
    are left out. What other layers would save because of them is not: only `shrink` knows.

    Args:
        model: The model. It runs once, in eval mode.
        x: An input: a shape such as `(1, 3, 224, 224)`, a tensor, a tuple of positional or a dict
            of keyword arguments.
        custom_ops: Has no effect: matrix products and convolutions are counted in any module.
        verbose: Whether to print a table.
        mode: Has no effect: biases, normalisations and activations are not counted.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 6 * 6, 10))
        >>> flops, params, results = count_flops_params(model, (1, 3, 8, 8), verbose=False)
        >>> flops, params
        (5328, 1562)
        >>> [result["flops"] for result in results]  # 36 positions * 4 * 27 weights, and 144 * 10
        [3888, 1440]
    """
    model = model_of(model)
    for name, given in (("custom_ops", custom_ops), ("mode", mode != "default")):
        if given:
            warnings.warn(
                f"count_flops_params: {name} has no effect here; the formulas are those of "
                "torch.utils.flop_counter.",
                PruneWarning,
                stacklevel=2,
            )
    args, kwargs = _arguments(model, x)
    layers = [_Layer(name, module) for name, module in _layers_of(model)]
    total = _count(model, args, kwargs, layers)
    each = 2 * _batch(*args, *kwargs.values())
    total -= sum(layer.flops - layer.unmasked(layer.flops) for layer in layers)
    hidden = sum(layer.masked for layer in layers)
    counted = Counted(
        total // each,
        sum(parameter.numel() for parameter in model.parameters()) - hidden,
        [layer.result(each) for layer in layers],
    )
    if verbose:
        print(_table(counted))
    return counted


@dataclass(slots=True)
class _Layer:
    """A module that has parameters of its own, or a wrapper and all that it wraps.

    Attributes:
        name: Its name.
        module: The module.
        flops: What its forward does without that of other layers in it, as torch counts.
    """

    name: str
    module: nn.Module
    flops: int = 0

    @property
    def masked(self) -> int:
        """How many values masks hide."""
        if not isinstance(self.module, PrunerModuleWrapper):
            return 0
        return sum(self.module.masked_count(name) for name in self.module.masked_names)

    def unmasked(self, flops: int) -> int:
        """Return the part of a count that the mask of the weight leaves."""
        if not isinstance(self.module, PrunerModuleWrapper):
            return flops
        weight = self.module.parameter(self.module.target).numel()
        return flops * (weight - self.module.masked_count(self.module.target)) // max(weight, 1)

    def result(self, each: int) -> dict[str, Any]:
        wrapped = isinstance(self.module, PrunerModuleWrapper)
        inner: Any = self.module.module if wrapped else self.module
        parameters = self.module.parameters(recurse=wrapped)
        weight = getattr(inner, "weight", None)
        return {
            "name": self.name,
            "module_type": type(inner).__name__,
            "weight_shape": tuple(weight.shape) if isinstance(weight, Tensor) else (),
            "flops": self.unmasked(self.flops) // each,
            "params": sum(parameter.numel() for parameter in parameters) - self.masked,
        }


def _layers_of(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    inside: set[nn.Module] = set()
    for name, module in model.named_modules():
        if module in inside:
            continue
        if isinstance(module, PrunerModuleWrapper):
            inside.update(module.modules())
            yield name, module
        elif any(True for _ in module.parameters(recurse=False)):
            yield name, module


def _count(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], layers: list[_Layer]
) -> int:
    """Run the model; note what each layer did, and return what all of it did, as torch counts."""
    counter = FlopCounterMode(display=False)
    # For each layer that is running, what had been counted when it began, and for layers in it.
    running: list[tuple[int, int]] = []

    def enter(module: nn.Module, inputs: Any) -> None:
        running.append((counter.get_total_flops(), 0))

    def leaves(layer: _Layer) -> Callable[..., None]:
        def leave(module: nn.Module, inputs: Any, output: Any) -> None:
            began, inner = running.pop()
            spent = counter.get_total_flops() - began
            layer.flops += spent - inner
            if running:
                running[-1] = running[-1][0], running[-1][1] + spent

        return leave

    handles = [layer.module.register_forward_pre_hook(enter) for layer in layers]
    handles += [layer.module.register_forward_hook(leaves(layer)) for layer in layers]
    try:
        with evaluating(model), plain_kernels(model), torch.no_grad(), counter:
            model(*args, **kwargs)
    finally:
        for handle in handles:
            handle.remove()
    total: int = counter.get_total_flops()
    return total


def _arguments(model: nn.Module, x: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return what to call a model with, where its parameters are."""
    where = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))

    def there(value: Any) -> Any:
        return value.to(where) if isinstance(value, Tensor) else value

    if isinstance(x, Tensor):
        return (there(x),), {}
    if isinstance(x, Mapping):
        return (), {name: there(value) for name, value in x.items()}
    if isinstance(x, list | tuple) and x:
        if all(isinstance(size, int) for size in x):
            return (torch.zeros(*x, device=where),), {}
        return tuple(there(value) for value in x), {}
    raise ConfigError(
        f"x is {x!r}; count_flops_params needs an input of the model: a shape such as "
        "(1, 3, 224, 224), a tensor, a tuple of tensors or a dict of keyword arguments."
    )


def _batch(*values: Any) -> int:
    """Return how many samples an input holds: the first size of its first tensor."""
    first = next((v for v in values if isinstance(v, Tensor) and v.ndim and len(v)), None)
    return 1 if first is None else len(first)


def _table(counted: Counted) -> str:
    head = ("Name", "Type", "Weight Shape", "FLOPs", "#Params")
    rows = [
        (r["name"], r["module_type"], str(r["weight_shape"]), f"{r['flops']:,}", f"{r['params']:,}")
        for r in counted.results
    ]
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = [
        "  ".join(
            cell.rjust(width) if place > 2 else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in (head, *rows)
    ]
    return "\n".join(
        [*lines, f"FLOPs total: {counted.flops:,}", f"#Params total: {counted.params:,}"]
    )
