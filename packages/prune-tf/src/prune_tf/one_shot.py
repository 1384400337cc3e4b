"""Pruning for the impatient: one line, no config."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras

from prune_core.compressed import Compressed
from prune_core.errors import ConfigError, did_you_mean, nearest, shown
from prune_core.events import emit
from prune_core.options import check_flags
from prune_core.registry import get_pruner
from prune_speedup.budget.ratios import check_target
from prune_tf.budget import fit_budget
from prune_tf.inputs import check_inputs
from prune_tf.layers import layers_of, slots_of
from prune_tf.masks import Masks, masks_of, put_masks, unwrap
from prune_tf.pruning.closing import masks_that_go
from prune_tf.pruning.pruner import Pruner
from prune_tf.pruning.targets import weights_of
from prune_tf.speedup.find_units import both
from prune_tf.speedup.run import check_constants
from prune_tf.torch_names import keras_name

__all__ = ["prune"]


def prune(
    model: keras.Model,
    algorithm: str = "l1",
    *,
    sparsity: float | None = None,
    target: Mapping[str, float] | None = None,
    example_inputs: Any = None,
    targets: str | Sequence[str] = ("default",),
    exclude: str | Sequence[str] = (),
    round_to: int = 1,
    uniform: bool = False,
    constants: str = "exact",
    **options: Any,
) -> tuple[keras.Model, Masks]:
    """Mask a model with a registered algorithm, by a ratio or by a budget.

    Where the algorithm prunes channels, those that belong together go together, outputs of the
    model stay, and masks are closed over what follows a channel, so that `shrink` removes all that
    is masked.

    Args:
        model: The model, masked in place.
        algorithm: The name of a registered pruner.
        sparsity: The ratio that each selected layer loses; with `mode="global"`, that all of them
            lose together.
        target: What may be left instead, such as `{"flops": 0.5}`, of `parameters`, `flops`,
            `latency` or a cost that a plugin registers; the least sparsity that meets it is found.
        example_inputs: What a `latency` is measured on: a batch of the size that will be used. It
            is needed for nothing else, because Keras models are read without inputs, and refused
            where the model does not run on it.
        targets: Names or class names of layers, or `"default"` for what the algorithm prunes.
        exclude: Names or class names of layers that stay dense.
        round_to: Leave a multiple of this many channels.
        uniform: Leave layers that are alike equally wide.
        constants: What `shrink` will be told to do with a masked channel that is not zero.
        **options: Further arguments of the pruner. `mode="global"` ranks the channels of all
            layers together instead of taking as much of each, `mode="normal"` masks each layer for
            itself.

    Returns:
        The model and its masks.

    Raises:
        ConfigError: Something cannot be done, or nothing could be pruned; the model is left as it
            was.

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
        >>> model, masks = prune_tf.prune(model, "l1", target={"flops": 0.5})
        >>> prune_tf.shrink(model).model.get_layer("hidden").units
        8
    """
    _check(model, algorithm, sparsity, target, round_to, constants)
    check_flags(uniform=uniform)
    if "dummy_input" in options:
        raise ConfigError("dummy_input is not needed: Keras models are read without inputs.")
    if example_inputs is not None:
        check_inputs(model, example_inputs)
    amount = 0.0 if sparsity is None else sparsity
    rules: list[dict[str, Any]] = [
        {"sparsity": amount, **selector} for selector in _selectors(model, "targets", targets)
    ]
    rules += [{"exclude": True, **selector} for selector in _selectors(model, "exclude", exclude)]
    pruner_class: Any = get_pruner(algorithm, framework="keras")
    mode = options.get("mode")
    modes = getattr(pruner_class, "modes", ())
    coupled = COUPLED in modes and mode in (None, COUPLED, "global")
    if coupled:
        options = options | {"mode": COUPLED}
    elif target is not None or round_to > 1 or uniform:
        raise ConfigError(_not_coupled(algorithm, mode, modes))
    before = masks_of(model)
    try:
        pruner: Pruner = pruner_class(model, rules, **options)
        if coupled:
            masks = _together(
                pruner, target, amount, round_to, uniform, mode, constants, example_inputs
            )
        else:
            masks = pruner.compress()[1]
        if all(mask.all() for tensors in masks.values() for mask in tensors.values()):
            raise ConfigError(_nothing(pruner, amount, target, round_to))
    except BaseException:
        if not before:
            unwrap(model)
        raise
    return Compressed(model, masks)


COUPLED = "dependency_aware"


def _together(
    pruner: Pruner,
    target: Mapping[str, float] | None,
    sparsity: float,
    round_to: int,
    uniform: bool,
    mode: str | None,
    constants: str,
    example_inputs: Any,
) -> Masks:
    """Mask whole units, and close the masks over what follows them."""
    coupling, model = pruner.coupling, pruner.bound_model
    assert coupling is not None
    coupling.round_to, coupling.uniform, coupling.across = round_to, uniform, mode == "global"
    if target is not None:
        sparsity = fit_budget(pruner, target, constants, example_inputs)
        for each in pruner.targets:
            each.config["sparsity"] = sparsity
    masks = masks_that_go(pruner, lambda each: sparsity, constants)
    put_masks(model, both(masks_of(model), masks))
    emit("prune_masks_made", pruner=pruner, masks=masks)
    return masks


def _check(
    model: Any,
    algorithm: Any,
    sparsity: float | None,
    target: Mapping[str, float] | None,
    round_to: int,
    constants: str,
) -> None:
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
    if (sparsity is None) == (target is None):
        raise ConfigError(
            "Say how much to prune, once: sparsity=0.5 prunes half of each layer, and "
            "target={'flops': 0.5} as little as leaves half of the work."
        )
    if target is not None:
        check_target(target)
    if not isinstance(round_to, int) or isinstance(round_to, bool) or round_to < 1:
        raise ConfigError(f"round_to is {round_to!r}; it must be a whole number of at least 1.")
    check_constants(constants)


def _not_coupled(algorithm: str, mode: str | None, modes: Sequence[str]) -> str:
    if COUPLED in modes:
        return (
            f"mode is {mode!r}, which masks each layer for itself; a budget, round_to and uniform "
            "need layers that agree on their channels. Leave mode out, or say mode='global'."
        )
    return (
        f"A budget, round_to and uniform need an algorithm that prunes output channels together, "
        f"and {algorithm!r} has no mode {COUPLED!r}. Use one that has, such as 'l1', or say "
        "sparsity= without the others."
    )


def _nothing(
    pruner: Pruner, sparsity: float, target: Mapping[str, float] | None, round_to: int
) -> str:
    least = f"{round_to} channels" if round_to > 1 else "one channel, or one weight,"
    reasons = [f"sparsity={sparsity} is less than {least} of any layer"]
    if target is not None:
        reasons = ["the budget is met as it is"]
    if pruner.coupling is not None and not pruner.coupling.choice(pruner.targets).families:
        found = pruner.coupling.choice(pruner.targets)
        reasons = [f"{name!r} stays because {why}" for name, why in found.fixed.items()]
        reasons += [
            f"{name!r} belongs together with {other!r}" for name, other in found.held.items()
        ]
    more = f"; and {len(reasons) - 3} more" if reasons[3:] else ""
    return f"Nothing can be pruned: {'; '.join(reasons[:3])}{more}."


def _listed(argument: str, value: str | Sequence[str]) -> list[str]:
    names: list[Any] = list(value) if isinstance(value, list | tuple | set) else [value]
    if any(not isinstance(name, str) for name in names) or (argument == "targets" and not names):
        raise ConfigError(
            f"{argument} is {shown(value)}; it must be a name or class name of layers, or a list."
        )
    return names


def _selectors(
    model: keras.Model, argument: str, value: str | Sequence[str]
) -> list[dict[str, list[str]]]:
    """Return for each name or class name how a `config_list` selects it."""
    layers = layers_of(model)
    # A layer is all of its weights; one of several may be named by itself too.
    names = {name: [name] for named in layers for name, _ in weights_of(named)}
    kinds: dict[str, list[str]] = {}
    by_layer = {id(named.layer): [name for name, _ in weights_of(named)] for named in layers}
    for named in layers:
        # The weights of a recurrent layer are those of its cell.
        cell = by_layer.get(id(getattr(named.layer, "cell", None)))
        names |= dict.fromkeys(named.names, by_layer[id(named.layer)] or cell or [named.name])
        if cell:
            kinds.setdefault(type(named.layer).__name__, []).extend(cell)
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
    chosen = names | {kind: names for kind, names in kinds.items() if kind not in names}
    return [{"op_names": chosen[n]} if n in chosen else {"op_types": [n]} for n in wanted]
