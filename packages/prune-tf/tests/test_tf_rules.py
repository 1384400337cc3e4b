"""One row for each rule: what stands behind a layer of 8 channels of which 4 are masked.

A row says how many of the 8 are left. 4: the channels are followed through. 8: they have to stay,
because what comes out depends on how many there are, or on which.
"""

import keras
import numpy as np
import pytest
from keras import layers, ops

from prune_core import PruneWarning
from prune_tf import shrink
from prune_tf.speedup.record import record
from prune_tf.speedup.rules import RULES, rule_for

# Rules read shapes and arrays, which are the same on every backend.
pytestmark = pytest.mark.tensorflow(
    "rules read shapes and arrays, the same on every backend; one is enough"
)

VECTOR, SEQUENCE, IMAGE, VOLUME = (5,), (6, 5), (6, 6, 5), (4, 4, 4, 5)
SHAPES = {"1D": SEQUENCE, "2D": IMAGE, "3D": VOLUME}

PLAIN = (
    *("abs", "absolute", "negative", "square", "sign", "ceil", "floor", "round", "sin", "cos"),
    *("arctan", "exp", "expm1", "erf", "tanh", "sigmoid", "relu", "relu6", "elu", "selu", "celu"),
    *("gelu", "silu", "softplus", "softsign", "log_sigmoid", "leaky_relu", "hard_sigmoid"),
    *("hard_silu", "hard_tanh", "soft_shrink", "hard_shrink", "tanh_shrink"),
)
ELEMENTWISE = {
    **{name: getattr(ops, name) for name in PLAIN},
    "threshold": lambda h: ops.threshold(h, 0.1, 0.0),
    "clip": lambda h: ops.clip(h, -0.5, 0.5),
    "log": lambda h: ops.log(ops.abs(h) + 1),
    "log1p": lambda h: ops.log1p(ops.abs(h)),
    "sqrt": lambda h: ops.sqrt(ops.abs(h)),
    "rsqrt": lambda h: ops.rsqrt(ops.square(h) + 1),
    "reciprocal": lambda h: ops.reciprocal(ops.square(h) + 1),
    "cast": lambda h: ops.cast(ops.cast(h, "float64"), "float32"),
    "stop_gradient": ops.stop_gradient,
    "convert_to_tensor": ops.convert_to_tensor,
    "zeros_like": lambda h: h + ops.zeros_like(h),
    "ones_like": lambda h: h * ops.ones_like(h),
    "Activation": layers.Activation("tanh"),
    "ReLU": layers.ReLU(),
    "LeakyReLU": layers.LeakyReLU(),
    "ELU": layers.ELU(),
    "PReLU": layers.PReLU(),
    "Rescaling": layers.Rescaling(2.0, 1.0),
    "Dropout": layers.Dropout(0.5),
    "GaussianDropout": layers.GaussianDropout(0.5),
    "GaussianNoise": layers.GaussianNoise(0.5),
    "ActivityRegularization": layers.ActivityRegularization(0.1),
    "Identity": layers.Identity(),
    "BatchNormalization": layers.BatchNormalization(),
}
MEETING = {
    "add": lambda h: h + 1,
    "subtract": lambda h: 1 - h,
    "multiply": lambda h: h * 2,
    "divide": lambda h: ops.divide(h, 2),
    "true_divide": lambda h: ops.true_divide(h, 2),
    "power": lambda h: ops.power(h, 2),
    "maximum": lambda h: ops.maximum(h, 0.1),
    "minimum": lambda h: ops.minimum(h, 0.1),
    "where": lambda h: ops.where(h > 0, h, ops.zeros_like(h)),
    "Add": lambda h: layers.Add()([h, ops.relu(h)]),
    "Average": lambda h: layers.Average()([h, ops.relu(h)]),
}
COMPARED = {
    "equal": ops.equal,
    "not_equal": ops.not_equal,
    "greater": ops.greater,
    "greater_equal": ops.greater_equal,
    "less": ops.less,
    "less_equal": ops.less_equal,
    "logical_and": lambda h, zero: ops.logical_and(h > zero, h < 1),
    "logical_or": lambda h, zero: ops.logical_or(h > zero, h < -1),
    "logical_xor": lambda h, zero: ops.logical_xor(h > zero, h < -1),
    "logical_not": lambda h, zero: ops.logical_not(h > zero),
    "isnan": lambda h, zero: ops.isnan(h),
    "isinf": lambda h, zero: ops.isinf(h),
    "isfinite": lambda h, zero: ops.isfinite(h),
}
OVER_CHANNELS = {
    "mean": lambda h: h - ops.mean(h, axis=-1, keepdims=True),
    "max": lambda h: h - ops.max(h, axis=-1, keepdims=True),
    "min": lambda h: h - ops.min(h, axis=-1, keepdims=True),
    "amax": lambda h: h - ops.amax(h, axis=-1, keepdims=True),
    "amin": lambda h: h - ops.amin(h, axis=-1, keepdims=True),
    "var": lambda h: h - ops.var(h, axis=-1, keepdims=True),
    "std": lambda h: h - ops.std(h, axis=-1, keepdims=True),
    "prod": lambda h: h - ops.prod(h, axis=-1, keepdims=True),
    "median": lambda h: h - ops.median(h, axis=-1, keepdims=True),
    "logsumexp": lambda h: h - ops.logsumexp(h, axis=-1, keepdims=True),
    "argmax": lambda h: h + ops.cast(ops.argmax(h, axis=-1, keepdims=True), "float32"),
    "argmin": lambda h: h + ops.cast(ops.argmin(h, axis=-1, keepdims=True), "float32"),
    "count_nonzero": lambda h: (
        h + ops.cast(ops.expand_dims(ops.count_nonzero(h, axis=-1), -1), "float32")
    ),
    "all": lambda h: h + ops.cast(ops.all(h > 0, axis=-1, keepdims=True), "float32"),
    "any": lambda h: h + ops.cast(ops.any(h > 0, axis=-1, keepdims=True), "float32"),
    "softmax": lambda h: ops.softmax(h, axis=-1),
    "log_softmax": lambda h: ops.log_softmax(h, axis=-1),
    "sort": lambda h: ops.sort(h, axis=-1),
    "argsort": lambda h: h + ops.cast(ops.argsort(h, axis=-1), "float32"),
    "cumsum": lambda h: ops.cumsum(h, axis=-1),
    "cumprod": lambda h: ops.cumprod(h, axis=-1),
    "top_k": lambda h: ops.top_k(h, 3)[0],
    "flip": lambda h: ops.flip(h, axis=-1),
    "roll": lambda h: ops.roll(h, 1, axis=-1),
    "getitem": lambda h: h[..., 1::2],
    "slice": lambda h: ops.slice(h, (0, 1, 0), (2, 3, 8)),
    "take": lambda h: ops.take(h, np.array([1, 0, 3]), axis=-1),
    "unstack": lambda h: ops.unstack(h, axis=-1)[0] if len(h.shape) > 2 else h[..., 1:],
    "LayerNormalization": layers.LayerNormalization(),
    "RMSNormalization": layers.RMSNormalization(),
    "UnitNormalization": layers.UnitNormalization(),
    "one_hot": lambda h: ops.one_hot(ops.argmax(h, axis=-1), 8),
}
IN_A_SEQUENCE = {
    "sum": lambda h: ops.sum(h, axis=1),
    "mean": lambda h: ops.mean(h, axis=1),
    "softmax": lambda h: ops.softmax(h, axis=1),
    "sort": lambda h: ops.sort(h, axis=1),
    "argsort": lambda h: h + ops.cast(ops.argsort(h, axis=1), "float32"),
    "cumsum": lambda h: ops.cumsum(h, axis=1),
    "top_k": lambda h: ops.swapaxes(ops.top_k(ops.swapaxes(h, 1, 2), 3)[0], 1, 2),
    "flip": lambda h: ops.flip(h, axis=1),
    "roll": lambda h: ops.roll(h, 1, axis=1),
    "getitem": lambda h: h[:, 1:4],
    "take": lambda h: ops.take(h, np.array([1, 0]), axis=1),
    "unstack": lambda h: ops.unstack(h, axis=1)[2],
    "take_along_axis": lambda h: ops.take_along_axis(h, np.array([[[5], [0]]] * 2), axis=1),
    "stack": lambda h: ops.sum(ops.stack([h, ops.relu(h)], axis=2), axis=2),
    "stack_behind": lambda h: ops.sum(ops.stack([h, ops.relu(h)], axis=-1), axis=-1),
    "concatenate": lambda h: layers.Concatenate(axis=-1)([h, ops.relu(h)]),
    "split": lambda h: ops.split(h, 3, axis=1)[1],
    "pad": lambda h: ops.pad(h, [[0, 0], [1, 1], [0, 0]]),
    "repeat": lambda h: ops.repeat(h, 2, axis=-1),
    "tile": lambda h: ops.tile(h, [1, 2, 1]),
    "expand_dims": lambda h: ops.squeeze(ops.expand_dims(h, 1), 1),
    "transpose": lambda h: ops.transpose(ops.transpose(h, (0, 2, 1)), (0, 2, 1)),
    "transpose_to_the_front": lambda h: ops.transpose(ops.transpose(h, (2, 0, 1)), (1, 2, 0)),
    "swapaxes": lambda h: ops.swapaxes(ops.swapaxes(h, 1, 2), 1, 2),
    "moveaxis": lambda h: ops.moveaxis(ops.moveaxis(h, 1, 2), 1, 2),
    "broadcast_to": lambda h: ops.broadcast_to(ops.sum(h, axis=-1, keepdims=True), (2, 6, 4)),
    "Permute": lambda h: layers.Permute((2, 1))(layers.Permute((2, 1))(h)),
    "Flatten": layers.Flatten(),
    "Reshape": layers.Reshape((3, 2, 8)),
    "RepeatVector": lambda h: layers.RepeatVector(3)(ops.mean(h, axis=1)),
    "einsum": lambda h: ops.einsum("bsd,btd->bst", h, h),
    "einsum_of_three": lambda h: ops.einsum("bsd,btd,bud->bstu", h, h, ops.relu(h)),
    "matmul": lambda h: ops.matmul(h, ops.transpose(h, (0, 2, 1))),
    "dot": lambda h: ops.dot(h, np.ones((8, 4), "float32")),
    "dot_product_attention": lambda h: ops.dot_product_attention(
        *[ops.expand_dims(h, 2)] * 3, scale=1.0
    ),
    "EinsumDense": layers.EinsumDense("bsd,de->bse", (6, 3)),
    "SimpleRNN": layers.SimpleRNN(4),
    "LSTM": layers.LSTM(4),
    "GRU": layers.GRU(4),
    "GroupNormalization": layers.GroupNormalization(8),
}
MEETS_AN_ARRAY = {"dot"}
"""An array of numbers cannot be cut."""


def of_dimensions():
    """Yield the layers of which there is one for each number of dimensions."""
    for dimension, shape in SHAPES.items():
        sizes = {
            "MaxPooling": 2,
            "AveragePooling": 2,
            "UpSampling": 2,
            "Cropping": 1,
            "ZeroPadding": 1,
            "SpatialDropout": 0.5,
        }
        for name, size in sizes.items():
            yield name + dimension, shape, getattr(layers, name + dimension)(size)
        for name in ("GlobalMaxPooling", "GlobalAveragePooling"):
            yield name + dimension, shape, getattr(layers, name + dimension)()
        for name in ("Conv", "DepthwiseConv", "SeparableConv"):
            kind = getattr(layers, name + dimension, None)
            if kind is not None:
                yield name + dimension, shape, kind(*([4] * (name != "DepthwiseConv")), 2)
        yield f"Conv{dimension}Transpose", shape, getattr(layers, f"Conv{dimension}Transpose")(4, 2)
    yield "Resizing", IMAGE, layers.Resizing(3, 4)


ROWS = [
    *((name, VECTOR, 4, f) for name, f in (ELEMENTWISE | MEETING).items()),
    *(
        (name, VECTOR, 4, lambda h, f=f: ops.where(f(h, 0.0), h, h * 2))
        for name, f in COMPARED.items()
    ),
    *((name, SEQUENCE, 8, f) for name, f in OVER_CHANNELS.items()),
    *((name, SEQUENCE, 8 if name in MEETS_AN_ARRAY else 4, f) for name, f in IN_A_SEQUENCE.items()),
    *((name, shape, 4, layer) for name, shape, layer in of_dimensions()),
]


def model_with(shape, step):
    """A hidden layer of 8 channels, what is tested, and a head."""
    x = layers.Input(shape, batch_size=2)
    h = layers.Dense(8, name="hidden", bias_initializer="normal")(x)
    h = step(h)
    return keras.Model(x, layers.Dense(3, name="head")(layers.Flatten()(h)))


def half_of(layer):
    """Masks of four of eight channels."""
    kept = np.arange(8) % 2 == 1
    return {"hidden": {"kernel": np.tile(kept, (layer.kernel.shape[0], 1)), "bias": kept}}


@pytest.mark.parametrize(
    ("shape", "left", "step"),
    [row[1:] for row in ROWS],
    ids=[f"{name}-{len(shape)}-{left}" for name, shape, left, _ in ROWS],
)
def test_what_a_rule_lets_go(shape, left, step):
    if isinstance(step, layers.Layer):
        step = type(step).from_config(step.get_config() | {"name": "step"})
    model = model_with(shape, step)
    hidden = model.get_layer("hidden")
    if left == 8:
        with pytest.warns(PruneWarning, match="Nothing was removed from"):
            report = shrink(model, masks=half_of(hidden))
        assert report.model is model
        return
    report = shrink(model, masks=half_of(hidden))
    assert report.model.get_layer("hidden").units == left
    assert not report.unknown
    x = np.random.default_rng(3).normal(size=(2, *shape)).astype("float32")
    for name, mask in half_of(hidden)["hidden"].items():
        variable = getattr(hidden, name)
        variable.assign(np.where(mask, ops.convert_to_numpy(variable), 0))
    small, masked = (ops.convert_to_numpy(m(x)) for m in (report.model, model))
    np.testing.assert_allclose(small, masked, rtol=1e-4, atol=1e-5)


def test_no_rule_is_without_a_row():
    # One is of keras.applications, where Inception-ResNet is tried; the other is an older name of
    # Absolute, which keras.ops makes no more.
    seen = {"CustomScaleLayer", "Abs"}
    for _, shape, _, step in ROWS:
        model = model_with(shape, step)
        for call in record(model, lambda op: rule_for(type(op)) is not None).calls:
            seen.add(type(call.op).__name__)
    assert {kind for kind in RULES if isinstance(kind, str)} - seen == set()
