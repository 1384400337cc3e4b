"""From the axes of Keras to those of torch and back.

Scores, blocks and mask files know one order only, torch's: output channels, input channels, space.
So an algorithm reads alike for both frameworks, and a mask file fits both.

| layer            | Keras                       | torch                           |
|------------------|-----------------------------|---------------------------------|
| Dense            | (in, out)                   | (out, in)                       |
| Conv             | (*space, in, out)           | (out, in, *space)               |
| ConvTranspose    | (*space, out, in)           | (in, out, *space)               |
| DepthwiseConv    | (*space, in, multiplier)    | (in · multiplier, 1, *space)    |
| SeparableConv    | as Depthwise and as Conv    | as Depthwise and as Conv        |
| anything else    | as it is                    | as it is                        |
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from prune_tf.layers import slots_of

__all__ = [
    "bias_axis",
    "brought_letters",
    "channel_letter",
    "from_torch",
    "output_axis",
    "to_torch",
    "torch_shape",
]

Array = np.ndarray[tuple[int, ...], Any]

_DEPTHWISE = (keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D)
_TRANSPOSED = (
    keras.layers.Conv1DTranspose,
    keras.layers.Conv2DTranspose,
    keras.layers.Conv3DTranspose,
)
_CONVOLUTIONS = (keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D)
_SEPARABLE = (keras.layers.SeparableConv1D, keras.layers.SeparableConv2D)


def to_torch(layer: Any, name: str, array: Array) -> Array:
    """View an array of the shape of a layer's variable in torch's order."""
    kind = _kind(layer, name)
    if kind == "dense":
        return array.T
    if kind in ("conv", "depthwise"):
        moved = np.moveaxis(array, (-1, -2), (0, 1))
        if kind == "conv":
            return moved
        multiplier, channels = moved.shape[:2]
        return moved.swapaxes(0, 1).reshape(channels * multiplier, 1, *moved.shape[2:])
    return array


def from_torch(layer: Any, name: str, array: Array) -> Array:
    """Undo `to_torch`."""
    kind = _kind(layer, name)
    if kind == "dense":
        return array.T
    if kind == "conv":
        return np.moveaxis(array, (0, 1), (-1, -2))
    if kind == "depthwise":
        channels, multiplier = getattr(layer, name).shape[-2:]
        split = array.reshape(channels, multiplier, *array.shape[2:])
        return np.moveaxis(split, (0, 1), (-2, -1))
    return array


def torch_shape(layer: Any, name: str) -> tuple[int, ...]:
    """Return the shape that a variable has in torch's order."""
    shape = tuple(getattr(layer, name).shape)
    return to_torch(layer, name, np.broadcast_to(np.bool_(), shape)).shape


def output_axis(layer: Any) -> int:
    """Return the axis, in torch's order, along which the weight's output channels lie."""
    if isinstance(layer, keras.layers.EinsumDense):
        return _terms(layer)[1].index(channel_letter(layer))
    return 1 if isinstance(layer, _TRANSPOSED) else 0


def bias_axis(layer: Any, axis: int | None = None) -> int:
    """Return the axis of the bias along which output channels lie, counted from the end.

    Args:
        layer: A layer.
        axis: The axis of its kernel that they lie along, if it is another than usual.
    """
    if isinstance(layer, keras.layers.EinsumDense):
        _, kernel, result = _terms(layer)
        letter = channel_letter(layer) if axis is None else kernel[axis]
        return result.index(letter) - len(result)
    return -1


def channel_letter(layer: keras.layers.EinsumDense) -> str:
    """Return the letter of an einsum layer's equation that its output channels go by.

    It is the first that the kernel brings in: the heads of attention rather than what is inside
    of each head, unless there is one head only.

    >>> channel_letter(keras.layers.EinsumDense("abc,cde->abde", (None, 4, 8)))
    'd'
    """
    kernel, brought = brought_letters(layer)
    sizes = dict(zip(kernel, layer._kernel.shape, strict=True)) if layer.built else {}
    several = [letter for letter in brought if sizes.get(letter, 2) > 1]
    return (several or brought or [kernel[-1]])[0]


def brought_letters(layer: keras.layers.EinsumDense) -> tuple[str, list[str]]:
    """Return the letters of an einsum layer's kernel, and which of them it brings in.

    >>> brought_letters(keras.layers.EinsumDense("abc,cde->abde", (None, 4, 8)))
    ('cde', ['d', 'e'])
    """
    taken, kernel, result = _terms(layer)
    return kernel, [letter for letter in kernel if letter in result and letter not in taken]


def _terms(layer: keras.layers.EinsumDense) -> tuple[str, str, str]:
    """Return the letters of what comes in, of the kernel, and of what goes out."""
    sides, result = layer.equation.replace(" ", "").replace("...", "").split("->")
    taken, kernel = sides.split(",")
    return taken, kernel, result


def _kind(layer: Any, name: str) -> str:
    if name not in slots_of(layer):
        return ""
    if name == "depthwise_kernel" or (name == "kernel" and isinstance(layer, _DEPTHWISE)):
        return "depthwise"
    if name == "pointwise_kernel" and isinstance(layer, _SEPARABLE):
        return "conv"
    if name == "kernel" and isinstance(layer, (*_CONVOLUTIONS, *_TRANSPOSED)):
        return "conv"
    if name == "kernel" and isinstance(layer, keras.layers.Dense):
        return "dense"
    return ""
