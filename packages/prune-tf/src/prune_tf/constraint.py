"""A weight constraint that holds a mask, and keeps what is masked at zero."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

__all__ = ["Masked"]

NEEDS = "The model is masked: `import prune_tf` before loading it."


@keras.saving.register_keras_serializable(package="prune_tf")
class Masked(keras.constraints.Constraint):  # type: ignore[misc]
    """Sets a weight to zero wherever its mask is False.

    Optimizers call a weight's constraint after each update, inside the compiled step. So masks
    are in force in every `fit`, with or without a callback; and because the mask is a variable,
    changing it takes effect in steps that were compiled before.

    The mask is part of the constraint's config, one bit per weight and compressed. That is how it
    survives `model.save`, `clone_model` and `from_config`.

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
        shape = tuple(shape)
        if isinstance(mask, str):
            mask = _unpacked(mask, shape)
        self.inner = keras.constraints.get(inner)
        self.mask = keras.Variable(
            np.ones(shape, bool) if mask is None else mask,
            dtype="bool",
            trainable=False,
            name="mask",
        )

    def __call__(self, w: Any) -> Any:
        """Return the weight with zeros where it is masked."""
        if self.inner is not None:
            w = self.inner(w)
        w = ops.convert_to_tensor(w)
        # where() rather than a product: 0 · inf is not 0.
        return ops.where(self.mask, w, ops.zeros_like(w))

    def get_config(self) -> dict[str, Any]:
        """Return what rebuilds the constraint, mask included."""
        mask = self.numpy()
        return {
            "needs": NEEDS,
            "shape": list(mask.shape),
            "mask": None if mask.all() else _packed(mask),
            "inner": keras.constraints.serialize(self.inner) if self.inner is not None else None,
        }

    def numpy(self) -> np.ndarray[Any, Any]:
        """Return the mask as an array of its own."""
        return np.array(self.mask.numpy(), bool)


def _packed(mask: np.ndarray[Any, Any]) -> str:
    return base64.b64encode(zlib.compress(np.packbits(mask).tobytes())).decode("ascii")


def _unpacked(text: str, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    bits = np.frombuffer(zlib.decompress(base64.b64decode(text)), np.uint8)
    return np.unpackbits(bits, count=int(np.prod(shape))).astype(bool).reshape(shape)
