"""One variable of one layer, and the mask that holds it."""

from __future__ import annotations

from typing import Any

import numpy as np

from prune_tf.constraint import Masked
from prune_tf.layers import Slot

__all__ = ["Put", "put_mask", "set_constraint"]

Put = str
"""What putting on a mask did: `"added"`, `"changed"` or `""`."""


def put_mask(layer: Any, slot: Slot, mask: np.ndarray[Any, Any]) -> Put:
    """Put a mask in force and set what it masks to zero."""
    variable = getattr(layer, slot.name)
    constraint, done = variable.constraint, ""
    if not isinstance(constraint, Masked):
        constraint, done = Masked(mask.shape, mask, inner=constraint), "added"
        set_constraint(layer, slot, constraint)
    elif not np.array_equal(constraint.numpy(), mask):
        constraint.mask.assign(mask)
        done = "changed"
    constraint.bind(variable)
    if not mask.all():
        constraint.hold()
    return done


def set_constraint(layer: Any, slot: Slot, constraint: Any) -> None:
    """Give a variable a constraint, and the layer too, where Keras looks for it.

    That is where `get_config()` reads it from. A layer without such an attribute gets one for the
    time being, because Keras saves the state of what it finds in attributes.
    """
    getattr(layer, slot.name).constraint = constraint
    own = f"{slot.name}_mask"
    name = next((name for name in slot.constraint if hasattr(layer, name)), own)
    if name in vars(layer):
        # TensorFlow forgets what an attribute held only if the attribute goes.
        delattr(layer, name)
    if name != own or isinstance(constraint, Masked):
        setattr(layer, name, constraint)
