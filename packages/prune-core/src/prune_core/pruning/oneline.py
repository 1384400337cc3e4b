"""Pruning for the impatient: one line, no config."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from prune_core.errors import ConfigError
from prune_core.pruning.allocate import Masks
from prune_core.registry import get_pruner

__all__ = ["prune"]


def prune(
    model: nn.Module,
    algorithm: str = "l1",
    *,
    sparsity: float,
    targets: str | Sequence[str] = ("default",),
    exclude: str | Sequence[str] = (),
    **options: Any,
) -> tuple[nn.Module, Masks]:
    """Mask a model with a registered algorithm.

    Args:
        model: The model, wrapped in place.
        algorithm: The name of a registered pruner.
        sparsity: The ratio that each selected module loses.
        targets: Names or class names of modules, or `"default"` for what the algorithm prunes.
        exclude: Names or class names of modules that stay dense.
        **options: Further arguments of the pruner.

    Returns:
        The wrapped model and its masks.

    Example:
        ```python
        model, masks = prune_core.prune(model, "l1", sparsity=0.5, exclude="fc3")
        ```
    """
    config_list = [
        {"sparsity": sparsity, **_selector(model, target)} for target in _listed("targets", targets)
    ]
    config_list += [
        {"exclude": True, **_selector(model, target)} for target in _listed("exclude", exclude)
    ]
    pruner = get_pruner(algorithm, framework="torch")(model, config_list, **options)
    wrapped, masks = pruner.compress()
    return wrapped, masks


def _listed(argument: str, value: str | Sequence[str]) -> list[str]:
    names = [value] if isinstance(value, str) else list(value)
    wrong = [name for name in names if not isinstance(name, str)]
    if wrong or (argument == "targets" and not names):
        raise ConfigError(
            f"{argument} is {value!r}; it must be a name or class name of modules, or a list."
        )
    return names


def _selector(model: nn.Module, target: str) -> dict[str, list[str]]:
    names = {name for name, _ in model.named_modules(remove_duplicate=False)}
    return {"op_names" if target in names else "op_types": [target]}
