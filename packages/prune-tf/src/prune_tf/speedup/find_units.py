"""What can be removed from a Keras model, and what must go with it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from prune_core.compressed import model_of
from prune_speedup.engine.labels import among
from prune_speedup.engine.removable import labels_of_units
from prune_speedup.engine.units import Unit, Units, read_units
from prune_tf.inputs import check_inputs
from prune_tf.layers import layers_of, slots_of
from prune_tf.masks import Masks
from prune_tf.speedup.graph import check_model
from prune_tf.speedup.labelling import labelled
from prune_tf.speedup.recorded import Recorded, variables_of

__all__ = ["analysed", "both", "labels_in", "masks_of_units", "units"]


def units(model: keras.Model, example_inputs: Any = None) -> Units:
    """Find what can be removed from a model, and what must go with it.

    Args:
        model: A built model: functional, Sequential, or a subclass; it is left as it was.
        example_inputs: What a subclassed model is called with, unless it tells by itself.

    Raises:
        SpeedupError: The calls of a subclassed model cannot be followed.

    Example:
        A unit is a channel of the first layer: its column, its bias, and what the second layer
        reads of it. The outputs of the model stay.

        >>> import keras
        >>> from prune_tf import units
        >>> model = keras.Sequential(
        ...     [
        ...         keras.layers.Input((3,)),
        ...         keras.layers.Dense(4, activation="relu", name="first"),
        ...         keras.layers.Dense(2, name="second"),
        ...     ]
        ... )
        >>> print(units(model))
        first/kernel[1]: 4 units
        ├── first/kernel axis 1 of 4, 1 index each
        ├── first/bias axis 0 of 4, 1 index each
        └── second/kernel axis 0 of 4, 1 index each
    """
    model = model_of(model)
    if example_inputs is not None and not getattr(model, "built", True):
        check_inputs(model, example_inputs)  # a subclass makes its weights when it is called
    return analysed(model, example_inputs)[0]


def analysed(model: keras.Model, example_inputs: Any = None) -> tuple[Units, Recorded]:
    """Return the units of a model, and the calls that they were found in."""
    check_model(model)
    made, labelling = labelled(model, example_inputs)
    return read_units(labelling), made


def labels_in(
    found: Units, chosen: Iterable[Unit | Mapping[str, Mapping[int, Iterable[int]]]]
) -> list[int]:
    """Return the numbers of units that are told by their slices.

    Raises:
        SpeedupError: Some of them have to stay, or are of another model.
    """
    return labels_of_units(found.labelling, chosen)


def masks_of_units(
    model: keras.Model, found: Units, labels: Sequence[int], *, every: bool = True
) -> Masks:
    """Return masks, `{layer name: {variable: mask}}`, of what belongs to some units.

    Args:
        model: The model.
        found: Its units.
        labels: The numbers of the units that are to go.
        every: Whether to cover every slice of them; otherwise those of vectors alone, such as the
            factors and offsets of a batch norm.
    """
    roots = found.labelling.labels.find(np.array(labels, dtype=np.int64))
    names = {id(named.layer): named.name for named in layers_of(model)}
    masks: Masks = {}
    for name, layer, variable in variables_of(model):
        if id(layer) not in names or not (every or len(variable.shape) == 1):
            continue
        slot = next((each for each in slots_of(layer) if getattr(layer, each) is variable), None)
        if slot is None:
            continue
        mask = np.ones(tuple(variable.shape), bool)
        for axis in range(mask.ndim):
            classes = found.axes.get((found.aliases.get(name, name), axis))
            if classes is not None:
                np.moveaxis(mask, axis, 0)[among(classes, roots)] = False
        if not mask.all():
            masks.setdefault(names[id(layer)], {})[slot] = mask
    return masks


def both(first: Mapping[str, Mapping[str, Any]], second: Mapping[str, Mapping[str, Any]]) -> Masks:
    """Return masks that cover what either of two covers."""
    found = {
        name: {n: np.asarray(m, bool) for n, m in masks.items()} for name, masks in first.items()
    }
    for name, masks in second.items():
        known = found.setdefault(name, {})
        for slot, mask in masks.items():
            known[slot] = mask & known[slot] if slot in known else np.asarray(mask, bool)
    return found
