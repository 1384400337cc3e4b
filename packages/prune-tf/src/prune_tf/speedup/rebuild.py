"""A smaller copy of a model, as planned."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from prune_core.errors import SpeedupError
from prune_tf.arrays import array_of
from prune_tf.constraint import Masked
from prune_tf.layers import slots_of
from prune_tf.masks import plain
from prune_tf.speedup.channels import is_own
from prune_tf.speedup.copies import (
    Copies,
    Pairs,
    carry_state,
    copy_layer,
    copy_model,
    pairs_of,
)
from prune_tf.speedup.graph import is_graph
from prune_tf.speedup.plan import Merge, Plan
from prune_tf.speedup.reshapes import Shares, is_told
from prune_tf.speedup.settings import SHAPED, counts_of, settings_of, shares_of
from prune_tf.speedup.shaping import RESHAPES, ShapeCarrier, own_variables, shape, written_arguments

__all__ = ["cut", "rebuild"]

Array = np.ndarray[Any, Any]


def rebuild(model: keras.Model, plan: Plan) -> tuple[keras.Model, Pairs]:
    """Return a copy of a model with smaller layers, and each layer with its copy."""
    copies: Copies = {}
    with plain(model):
        if is_graph(model):
            small = copy_model(
                model, lambda op: _smaller(op, plan), copies, lambda inner: _inputs(inner, plan)
            )
        else:
            small = _shaped(model, plan)
            copies[id(model)] = (model, small)
        pairs = pairs_of(copies)
    for old, new in pairs:
        _fill(old, new, plan)
    return small, pairs


def _inputs(model: keras.Model, plan: Plan) -> list[Any] | None:
    """Return smaller inputs of a model inside of another, if less comes in than before."""
    made, smaller = [], False
    insides = plan.recorded.found.inner.get(id(model), ())
    for inner, known in zip(insides, model.inputs, strict=False):
        shape = list(known.shape)
        place = plan.recorded.places.get(id(inner))
        kept = {} if place is None else plan.cut.kept_of_value(place)
        for axis, indices in kept.items():
            shape[axis], smaller = len(indices), True
        made.append(keras.Input(batch_shape=tuple(shape), dtype=known.dtype, name=known.name))
    return made if smaller else None


def _is_cut(layer: Any, plan: Plan) -> bool:
    """Whether a layer, or one inside of it, loses anything or gets another bias."""
    variables = (v for each in layer._flatten_layers() for v in own_variables(each))
    return any(plan.kept_of(variable) for variable in variables)


def _shaped(layer: Any, plan: Plan) -> Any:
    """Return a copy of a layer that its class builds, cut to shape."""
    copy = copy_layer(layer)
    call = plan.recorded.found.entered.get(id(layer)) or plan.recorded.call_of(layer)
    arguments = ((), {}) if call is None else call.arguments
    if isinstance(layer, ShapeCarrier):
        build = layer._shaped["build"]
    else:
        build = written_arguments(arguments, layer)
    sizes: dict[str, dict[str, Any]] = {}
    for place, each in enumerate(layer._flatten_layers()):
        own = own_variables(each)
        shapes = [cut_shape(plan, v) for v in own]
        attributes = settings_of(each, plan) | counts_of(each, plan)
        changed = any(tuple(v.shape) != tuple(s) for v, s in zip(own, shapes, strict=True))
        changed |= any(getattr(each, name) != value for name, value in attributes.items())
        known = isinstance(layer, ShapeCarrier) and str(place) in layer._shaped["sizes"]
        shares = _shares(each, plan)
        if changed or known or shares is not None:
            before = dict(layer._shaped["sizes"][str(place)]) if known else {}
            sizes[str(place)] = before | {"weights": [list(s) for s in shapes]} | attributes
        if shares is not None:
            sizes[str(place)][RESHAPES] = shares
    made = shape(copy, build, sizes)
    _check_built(layer, made)
    return made


def _shares(layer: Any, plan: Plan) -> Shares | None:
    """What a layer's reshapes are told; nothing, but for itself, if it is inside of one that is."""
    if shares := shares_of(layer, plan):
        return shares
    tellers = [owner for owner, _ in plan.rules.told.values() if shares_of(owner, plan)]
    inside = any(each is layer for owner in tellers for each in owner._flatten_layers())
    return {} if inside and is_own(layer) and not is_told(layer) else None


def _check_built(layer: Any, copy: Any) -> None:
    """Refuse a layer with parts that are called only with arguments that this call does not have.

    In a copy nobody builds those, so that they would begin with other weights.
    """
    parts = zip(layer._flatten_layers(), copy._flatten_layers(), strict=False)
    for old, new in parts:
        if old.weights and not new.weights:
            raise SpeedupError(
                f"{layer.name!r} calls its {old.name!r} only with arguments that it is not called "
                "with here, so that a copy of it would have no weights there. Its masks stay in "
                "force. Give all that it takes in one argument, as call(self, inputs) with a list "
                "or a dict of tensors, and example_inputs=... of that form."
            )


def cut_shape(plan: Plan, variable: Any) -> tuple[int, ...]:
    """Return the shape that a variable will have."""
    kept = plan.kept_of(variable)
    return tuple(len(kept[at]) if at in kept else s for at, s in enumerate(variable.shape))


def _smaller(op: Any, plan: Plan) -> Any:
    inside = id(op) in plan.recorded.found.entered or type(op).__name__ in SHAPED
    if inside and _is_cut(op, plan):
        return _shaped(op, plan)

    def edit(config: dict[str, Any]) -> None:
        if type(op).__name__ not in SHAPED:
            config.update(settings_of(op, plan))
        if id(op) in plan.folds:
            config["use_bias"] = True
        if isinstance(op, keras.layers.Layer):
            # Masks come back with the weights, cut to the new shapes.
            for name, slot in slots_of(op).items():
                constraint = getattr(op, name).constraint
                if isinstance(constraint, Masked):
                    for key in slot.constraint:
                        if key in config:
                            config[key] = keras.constraints.serialize(constraint.inner)

    return copy_layer(op, edit)


def _fill(old: Any, new: Any, plan: Plan) -> None:
    """Give a layer of the small model the weights that it keeps."""
    if is_graph(old):
        return
    own, merges = own_variables(old), [m for m in plan.merges if m.reader.layer is old]
    if id(old) not in plan.folds and not merges and not any(map(plan.kept_of, own)):
        carry_state(old, new)
        return
    values = {variable.name: _value(variable) for variable in own}
    if id(old) in plan.folds:
        reader, places = plan.folds[id(old)]
        added = reader.numbers[places] @ reader.sums()[places]
        values["bias"] = values.get("bias", np.zeros(len(added))) + added
    for merge in merges:
        _take_over(values, merge)
    # By name, for a copy may have gained a bias; but Keras numbers variables that have no name of
    # their own, as those of Normalization, and the copy's have other numbers.
    names, found = [*values], own_variables(new)
    if {*names} <= {variable.name for variable in found}:
        names = [variable.name for variable in found]
    for name, variable in zip(names, found, strict=True):
        variable.assign(cut(plan, old, name, values[name]))


def _value(variable: Any) -> Array:
    """Return a variable as it is now, masked, as an array that numpy can compute with."""
    value = array_of(variable)
    wide = value.dtype.kind != "f" or value.itemsize >= 4
    return value if wide else value.astype("float32")


def _take_over(values: dict[str, Array], merge: Merge) -> None:
    name, axis = merge.reader.variable, merge.reader.axis
    slices = np.moveaxis(values[name].astype(np.float64), axis, 0).copy()
    slices[merge.into] += merge.share * slices[merge.gone]
    values[name] = np.moveaxis(slices, 0, axis)


def cut(plan: Plan, layer: Any, name: str, array: Array) -> Array:
    """Return what is left of an array that is shaped as a layer's variable."""
    variable = getattr(layer, name, None)
    if not isinstance(variable, keras.Variable):
        variable = next((v for v in own_variables(layer) if v.name == name), None)
    if variable is not None:
        for axis, kept in plan.kept_of(variable).items():
            array = np.take(array, kept, axis)
    elif name == "bias":
        # A layer that had no bias and got one: its places are those of its outputs.
        kernel = getattr(layer, "pointwise_kernel", layer.kernel)
        outputs = plan.kept_of(kernel).get(len(kernel.shape) - 1)
        array = array if outputs is None else np.take(array, outputs, 0)
    return array
