"""A weight constraint that holds a mask, and keeps what is masked at zero."""

from __future__ import annotations

import base64
import weakref
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from prune_tf.arrays import array_of

__all__ = ["Masked", "packed", "unpacked"]

if keras.backend.backend() == "tensorflow":
    import tensorflow as tf

    # What layers of TensorFlow hold of this kind is part of a `tf.train.Checkpoint`.
    _Tracked: type = tf.__internal__.tracking.AutoTrackable
else:
    _Tracked = object

NEEDS = "The model is masked: `import prune_tf` before loading it."


@keras.saving.register_keras_serializable(package="prune_tf")
class Masked(keras.constraints.Constraint, keras.Operation, _Tracked):  # type: ignore[misc]
    """Sets a weight to zero wherever its mask is False.

    Optimizers call a weight's constraint after each update, inside the compiled step. So masks
    are in force in every `fit`, with or without a callback; and because the mask is a variable,
    changing it takes effect in steps that were compiled before.

    The mask travels with the weight. It is part of the constraint's config, one bit per weight and
    compressed, which is how it survives `clone_model` and `from_config`. And it is saved beside the
    weight that it belongs to: Keras saves the state of every `Operation` that a layer holds, so
    `save_weights` and `load_weights` carry it too.

    Args:
        shape: Shape of the weight.
        mask: The mask, as an array or as `get_config` writes it; None masks nothing.
        inner: The constraint that the weight had before, applied first.
        needs: Nothing but a sentence. Keras prints the config of a class that it does not know,
            and so what is to be done reaches whoever loads a masked model without it.
    """

    def __init__(
        self,
        shape: Sequence[int],
        mask: np.ndarray[Any, Any] | str | None = None,
        inner: Any = None,
        needs: str = NEEDS,
    ) -> None:
        keras.Operation.__init__(self)
        shape = tuple(shape)
        if isinstance(mask, str):
            mask = unpacked(mask, shape)
        self.inner = keras.constraints.get(inner)
        self.mask = keras.Variable(
            np.ones(shape, bool) if mask is None else mask,
            dtype="bool",
            trainable=False,
            name="mask",
        )
        self._held: Any = None

    def __call__(self, w: Any) -> Any:
        """Return the weight with zeros where it is masked."""
        if isinstance(w, keras.Variable):
            self.bind(w)
        if self.inner is not None:
            w = self.inner(w)
        return self.masked(w)

    def masked(self, w: Any) -> Any:
        """Return a weight with zeros where it is masked, and otherwise as it is.

        Args:
            w: The weight.
        """
        w = ops.convert_to_tensor(w)
        # where() rather than a product: 0 · inf is not 0.
        return ops.where(ops.convert_to_tensor(self.mask), w, ops.zeros_like(w))

    def bind(self, variable: Any) -> None:
        """Remember the variable that is masked.

        Args:
            variable: The variable.
        """
        self._held = weakref.ref(variable)

    def hold(self) -> None:
        """Set what is masked of the variable to zero, now; the user's constraint is not asked."""
        variable = None if self._held is None else self._held()
        if variable is not None:
            variable.assign(self.masked(variable))

    def get_config(self) -> dict[str, Any]:
        """Return what rebuilds the constraint, mask included."""
        mask = self.numpy()
        return {
            "needs": NEEDS,
            "shape": list(mask.shape),
            "mask": None if mask.all() else packed(mask),
            "inner": keras.constraints.serialize(self.inner) if self.inner is not None else None,
        }

    def numpy(self) -> np.ndarray[Any, Any]:
        """Return the mask as an array of its own."""
        return np.array(array_of(self.mask), bool)

    def save_own_variables(self, store: Any) -> None:
        """Write the mask into a file of weights, when Keras does so for the layer."""
        store["mask"] = self.numpy()

    def load_own_variables(self, store: Mapping[str, Any]) -> None:
        """Read the mask from a file of weights.

        A file of dense weights has no masks; then those in force stay, and hold for what was read.
        """
        if "mask" in store.keys():  # noqa: SIM118 - Keras' stores have no __contains__
            mask = np.array(store["mask"], bool)
            if mask.shape != tuple(self.mask.shape):
                raise ValueError(
                    f"the mask has the shape {mask.shape}, and the weight {tuple(self.mask.shape)}"
                )
            self.mask.assign(mask)
        self.hold()


def packed(mask: np.ndarray[Any, Any]) -> str:
    """Return a mask as text, one bit per weight and compressed."""
    return base64.b64encode(zlib.compress(np.packbits(mask).tobytes())).decode("ascii")


def unpacked(text: str, shape: Sequence[int]) -> np.ndarray[Any, Any]:
    """Return the mask of a text made by `packed`."""
    bits = np.frombuffer(zlib.decompress(base64.b64decode(text)), np.uint8)
    return np.unpackbits(bits, count=int(np.prod(shape))).astype(bool).reshape(shape)
