"""A smaller copy of a model, as planned."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from prune_tf.constraint import Masked
from prune_tf.layers import slots_of
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

__all__ = ["cut", "rebuild"]

Array = np.ndarray[Any, Any]


def rebuild(model: keras.Model, plan: Plan) -> tuple[keras.Model, Pairs]:
    """Return a copy of a model with smaller layers, and each layer with its copy."""
    copies: Copies = {}
    small = copy_model(model, lambda op: _smaller(op, plan), copies)
    pairs = pairs_of(copies)
    for old, new in pairs:
        _fill(old, new, plan)
    return small, pairs


def _smaller(op: Any, plan: Plan) -> Any:
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
    values = {variable.name: analysis.weights(old, variable.name) for variable in old.weights}
    bias = plan.biases.get(id(old))
    if bias is not None:
        values["bias"] = values.get("bias", np.zeros(len(bias))) + bias
    for merge in plan.merges:
        if merge.layer is old:
            _take_over(values, merge)
    for variable in new.weights:
        variable.assign(cut(plan, old, variable.name, values[variable.name]))


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
    if variable == "bias" and ("bias", 0) not in axes and ("", 0) in axes:
        # A layer that had no bias and got one: its places are those of its outputs.
        array = np.take(array, plan.kept(axes["", 0]), 0)
    return array
