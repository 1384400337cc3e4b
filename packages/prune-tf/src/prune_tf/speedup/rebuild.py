"""A smaller copy of a model, as planned."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from prune_tf.arrays import array_of
from prune_tf.constraint import Masked
from prune_tf.layers import slots_of
from prune_tf.masks import plain
from prune_tf.speedup.copies import (
    Copies,
    Pairs,
    carry_state,
    copy_layer,
    copy_model,
    pairs_of,
)
from prune_tf.speedup.graph import is_graph
from prune_tf.speedup.plan import Plan
from prune_tf.speedup.shaping import ShapeCarrier, own_variables, shape, written_arguments

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
    for inner, known in zip(plan.analysis.inner.get(id(model), ()), model.inputs, strict=False):
        shape = list(known.shape)
        for part in plan.analysis.flow(inner).parts:
            count = len(plan.kept(part.labels))
            if len(shape) >= -part.axis and count < len(part.labels):
                shape[part.axis], smaller = count, True
        made.append(keras.Input(batch_shape=tuple(shape), dtype=known.dtype, name=known.name))
    return made if smaller else None


def _is_cut(layer: Any, plan: Plan) -> bool:
    """Whether a layer, or one inside of it, loses anything or gets another bias."""
    for each in layer._flatten_layers():
        for (variable, _), labels in plan.analysis.axes.get(id(each), {}).items():
            if variable and len(plan.kept(labels)) < len(labels):
                return True
    return False


def _shaped(layer: Any, plan: Plan) -> Any:
    """Return a copy of a layer that its class builds, cut to shape."""
    copy = copy_layer(layer)
    calls = plan.analysis.shaped | plan.analysis.entered
    call = calls.get(id(layer))
    arguments = ((), {}) if call is None else call.arguments
    if isinstance(layer, ShapeCarrier):
        build = layer._shaped["build"]
    else:
        build = written_arguments(arguments, layer)
    sizes: dict[str, dict[str, Any]] = {}
    for place, each in enumerate(layer._flatten_layers()):
        own = own_variables(each)
        shapes = [cut_shape(plan, each, v) for v in own]
        attributes = {
            name: value(plan) for name, value in plan.analysis.attributes[id(each)].items()
        }
        for name, labels in plan.analysis.sizes.get(id(each), {}).items():
            attributes[name] = len(plan.kept(labels))
        changed = any(tuple(v.shape) != tuple(s) for v, s in zip(own, shapes, strict=True))
        changed |= any(getattr(each, name) != value for name, value in attributes.items())
        known = isinstance(layer, ShapeCarrier) and str(place) in layer._shaped["sizes"]
        if changed or known:
            before = dict(layer._shaped["sizes"][str(place)]) if known else {}
            sizes[str(place)] = before | {"weights": [list(s) for s in shapes]} | attributes
    return shape(copy, build, sizes)


def cut_shape(plan: Plan, layer: Any, variable: Any) -> tuple[int, ...]:
    """Return the shape that a variable of a layer will have."""
    size = list(variable.shape)
    for (name, axis), labels in plan.analysis.axes.get(id(layer), {}).items():
        if name == variable.name:
            size[axis] = len(plan.kept(labels))
    return tuple(size)


def _smaller(op: Any, plan: Plan) -> Any:
    inside = id(op) in plan.analysis.entered or id(op) in plan.analysis.shaped
    if inside and _is_cut(op, plan):
        return _shaped(op, plan)

    def edit(config: dict[str, Any]) -> None:
        for key, labels in plan.analysis.sizes.get(id(op), {}).items():
            config[key] = len(plan.kept(labels))
        if id(op) in plan.biases:
            config["use_bias"] = True
        if id(op) in plan.analysis.reshaped:
            axis, labels = plan.analysis.reshaped[id(op)]
            # As a layer and as an operation; only the latter says how many samples there are.
            key = "target_shape" if "target_shape" in config else "newshape"
            target = list(config[key])
            if target[axis] != -1:
                target[axis] = len(plan.kept(labels))
            config[key] = tuple(target)
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
    analysis = plan.analysis
    if not analysis.axes.get(id(old)) and id(old) not in plan.biases:
        carry_state(old, new)
        return
    values = {variable.name: _value(variable) for variable in own_variables(old)}
    bias = plan.biases.get(id(old))
    if bias is not None:
        values["bias"] = values.get("bias", np.zeros(len(bias))) + bias
    for merge in plan.merges:
        if merge.layer is old:
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


def _take_over(values: dict[str, Array], merge: Any) -> None:
    slices = np.moveaxis(values[merge.variable].astype(np.float64), merge.axis, 0).copy()
    slices[merge.into] += merge.share * slices[merge.gone]
    values[merge.variable] = np.moveaxis(slices, 0, merge.axis)


def cut(plan: Plan, layer: Any, variable: str, array: Array) -> Array:
    """Return what is left of an array that is shaped as a layer's variable."""
    axes = plan.analysis.axes.get(id(layer), {})
    for (name, axis), labels in axes.items():
        if name == variable:
            array = np.take(array, plan.kept(labels), axis)
    if variable == "bias" and not any(name == "bias" for name, _ in axes) and ("", 0) in axes:
        # A layer that had no bias and got one: its places are those of its outputs.
        array = np.take(array, plan.kept(axes["", 0]), 0)
    return array
