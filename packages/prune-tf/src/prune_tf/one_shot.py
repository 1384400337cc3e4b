"""Pruning for the impatient: one line, no config."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from prune_core.errors import ConfigError, did_you_mean, nearest, shown
from prune_core.registry import get_pruner
from prune_tf.layers import layers_of, slots_of
from prune_tf.masks import Masks, masks_of, unwrap
from prune_tf.torch_names import keras_name

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
            f"model is {shown(model)}; it must be a Keras 3 model (keras.Model). prune_core.prune "
            "is for torch."
        )
    if not isinstance(algorithm, str):
        raise ConfigError(
            f"algorithm is {shown(algorithm)}; it must be the name of one, such as 'l1'. How much "
            "to prune is said by name: sparsity=0.5."
        )
    if sparsity is None:
        raise ConfigError(
            "Say how much to prune: sparsity=0.5 prunes half of each layer. Budgets (target=...) "
            "are there for torch models only."
        )
    rules: list[dict[str, Any]] = [
        {"sparsity": sparsity, **selector} for selector in _selectors(model, "targets", targets)
    ]
    rules += [{"exclude": True, **selector} for selector in _selectors(model, "exclude", exclude)]
    pruner_class = get_pruner(algorithm, framework="keras")
    if "dependency_aware" in getattr(pruner_class, "modes", ()):
        options = {"mode": "dependency_aware"} | options
    for name in ("example_inputs", "dummy_input"):
        if name in options:
            raise ConfigError(f"{name} is not needed: Keras models are read without inputs.")
    was_masked = bool(masks_of(model))
    compressed: tuple[keras.Model, Masks] = pruner_class(model, rules, **options).compress()
    masks = compressed[1]
    if all(mask.all() for tensors in masks.values() for mask in tensors.values()):
        if not was_masked:
            unwrap(model)
        raise ConfigError(
            f"Nothing can be pruned: sparsity={sparsity} is less than one channel, or one weight, "
            "of any layer."
        )
    return compressed


def _listed(argument: str, value: str | Sequence[str]) -> list[str]:
    names = [value] if isinstance(value, str) else list(value)
    if any(not isinstance(name, str) for name in names) or (argument == "targets" and not names):
        raise ConfigError(
            f"{argument} is {value!r}; it must be a name or class name of layers, or a list."
        )
    return names


def _selectors(
    model: keras.Model, argument: str, value: str | Sequence[str]
) -> list[dict[str, list[str]]]:
    """Return for each name or class name how a `config_list` selects it."""
    layers = layers_of(model)
    names = [name for named in layers for name in named.names]
    types = sorted({type(named.layer).__name__ for named in layers} | {"default"})
    weighted = [named.name for named in layers if slots_of(named.layer)]
    wanted = _listed(argument, value)
    for name in wanted if model.built and layers else ():
        if name not in names and name not in types:
            raise ConfigError(
                f"{argument} has {name!r}, and the model has no layer of that name or class."
                + (
                    keras_name(name, types)
                    or did_you_mean(name, [*names, *types])
                    or nearest(name, weighted)
                )
            )
    return [{"op_names" if name in names else "op_types": [name]} for name in wanted]
