"""Pruning for the impatient: one line, no config."""

from __future__ import annotations

from collections.abc import Sequence
from inspect import signature
from typing import Any

import keras

from prune_core.errors import ConfigError
from prune_core.registry import get_pruner
from prune_tf.layers import layers_of
from prune_tf.masks import Masks
from prune_tf.speedup.graph import is_graph

__all__ = ["prune"]


def prune(
    model: keras.Model,
    algorithm: str = "l1",
    *,
    sparsity: float | None = None,
    targets: str | Sequence[str] = ("default",),
    exclude: str | Sequence[str] = (),
    **options: Any,
) -> tuple[keras.Model, Masks]:
    """Mask a model with a registered algorithm.

    Channels of a functional or Sequential model that belong together go together
    (`mode="dependency_aware"`), where the algorithm prunes channels; outputs of the model stay.

    Args:
        model: The model, masked in place.
        algorithm: The name of a registered pruner.
        sparsity: The ratio that each selected layer loses.
        targets: Names or class names of layers, or `"default"` for what the algorithm prunes.
        exclude: Names or class names of layers that stay dense.
        **options: Further arguments of the pruner.

    Returns:
        The model and its masks.

    Example:
        >>> import keras
        >>> import prune_tf
        >>> model = keras.Sequential(
        ...     [
        ...         keras.layers.Input((8,)),
        ...         keras.layers.Dense(16, name="hidden"),
        ...         keras.layers.Dense(2, name="head"),
        ...     ]
        ... )
        >>> model, masks = prune_tf.prune(model, "l1", sparsity=0.5)
        >>> prune_tf.shrink(model).model.get_layer("hidden").units
        8
    """
    if not isinstance(model, keras.Model):
        raise ConfigError(
            f"model is a {type(model).__module__}.{type(model).__name__}; it must be a Keras 3 "
            "model (keras.Model). prune_core.prune is for torch."
        )
    if sparsity is None:
        raise ConfigError(
            "Say how much to prune: sparsity=0.5 prunes half of each layer. Budgets (target=...) "
            "are there for torch models only."
        )
    names = {name for named in layers_of(model) for name in named.names}
    rules: list[dict[str, Any]] = [
        {"sparsity": sparsity, **_selector(names, target)} for target in _listed("targets", targets)
    ]
    rules += [{"exclude": True, **_selector(names, name)} for name in _listed("exclude", exclude)]
    pruner_class = get_pruner(algorithm, framework="keras")
    if is_graph(model) and "dependency_aware" in getattr(pruner_class, "modes", ()):
        options = {"mode": "dependency_aware"} | options
    _check_options(pruner_class, options)
    compressed: tuple[keras.Model, Masks] = pruner_class(model, rules, **options).compress()
    return compressed


def _check_options(pruner_class: Any, options: dict[str, Any]) -> None:
    parameters = dict([*signature(pruner_class).parameters.items()][2:])
    taken = [*parameters]
    unknown = next((name for name in options if name not in taken), None)
    if unknown is not None:
        raise ConfigError(
            f"{pruner_class.__name__} takes no {unknown!r}; it takes {', '.join(taken)}. Keras "
            "models are read without inputs."
        )
    needed = [name for name, each in parameters.items() if each.default is each.empty]
    missing = next((name for name in needed if name not in options), None)
    if missing is not None:
        raise ConfigError(f"{pruner_class.__name__} needs {missing!r}; pass {missing}=....")


def _listed(argument: str, value: str | Sequence[str]) -> list[str]:
    names = [value] if isinstance(value, str) else list(value)
    if any(not isinstance(name, str) for name in names) or (argument == "targets" and not names):
        raise ConfigError(
            f"{argument} is {value!r}; it must be a name or class name of layers, or a list."
        )
    return names


def _selector(names: set[str], target: str) -> dict[str, list[str]]:
    return {"op_names" if target in names else "op_types": [target]}
