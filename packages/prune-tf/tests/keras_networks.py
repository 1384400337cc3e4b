"""Small networks of every form, and how two of them are compared."""

import keras
import numpy as np
from keras import layers, ops

HALF = [{"sparsity": 0.5, "op_types": ["default"]}, {"exclude": True, "op_names": ["out"]}]


def realistic(model):
    """Statistics, scales and offsets as after training, and biases that are not zero."""
    rng = np.random.default_rng(1)
    for layer in model._flatten_layers():
        for variable in layer.weights:
            shape = tuple(variable.shape)
            if variable.name in ("bias", "beta", "moving_mean"):
                variable.assign(rng.normal(size=shape) * 0.3)
            if variable.name in ("gamma", "moving_variance"):
                variable.assign(rng.uniform(0.5, 2.0, size=shape))
    return model


def image(size=12, channels=3):
    return layers.Input((size, size, channels))


def conv_norm(x, filters, kernel=3, activation="relu", **how):
    x = layers.Conv2D(filters, kernel, use_bias=False, **how)(x)
    return layers.Activation(activation)(layers.BatchNormalization()(x))


def ended(x, y):
    if len(y.shape) > 2:
        y = layers.GlobalAveragePooling2D()(y)
    return keras.Model(x, layers.Dense(3, name="out")(y))


def plain():
    x = image()
    return ended(x, conv_norm(conv_norm(conv_norm(x, 8), 12), 8))


def padded():
    x = image()
    y = conv_norm(conv_norm(conv_norm(x, 8, padding="same"), 12, padding="same"), 8)
    return ended(x, y)


def sigmoid_and_padding():
    x = image()
    y = conv_norm(x, 8, activation="sigmoid", padding="same")
    return ended(x, conv_norm(conv_norm(y, 12, activation="silu", padding="same"), 6))


def residual():
    x = image()
    start = conv_norm(x, 8, padding="same")
    y = conv_norm(start, 12, padding="same")
    y = layers.BatchNormalization()(layers.Conv2D(8, 3, padding="same")(y))
    return ended(x, layers.ReLU()(layers.Add()([start, y])))


def dense_block():
    x = image()
    start = conv_norm(x, 6, padding="same")
    y = layers.Concatenate()([start, conv_norm(start, 6, padding="same")])
    return ended(x, conv_norm(y, 8))


def inverted_bottleneck():
    x = image()
    start = conv_norm(x, 8, padding="same")
    y = conv_norm(start, 16, 1, "relu6")
    y = layers.DepthwiseConv2D(3, padding="same", use_bias=False)(y)
    y = layers.ReLU(6.0)(layers.BatchNormalization()(y))
    y = layers.BatchNormalization()(layers.Conv2D(8, 1)(y))
    return ended(x, layers.Add()([start, y]))


def strided_depthwise():
    x = image()
    y = layers.ZeroPadding2D(((0, 1), (0, 1)))(conv_norm(x, 8))
    y = layers.DepthwiseConv2D(3, strides=2, depth_multiplier=2, activation="relu")(y)
    return ended(x, layers.Conv2D(8, 1)(y))


def separable():
    x = image()
    y = layers.SeparableConv2D(8, 3, depth_multiplier=2, padding="same")(conv_norm(x, 8))
    return ended(x, layers.SeparableConv2D(6, 3)(layers.LeakyReLU()(y)))


def flattened():
    x = image(8)
    y = layers.Flatten()(layers.MaxPooling2D(2)(conv_norm(x, 8)))
    return ended(x, layers.Dropout(0.5)(layers.Dense(10, activation="gelu")(y)))


def squeeze_excite():
    x = image()
    y = conv_norm(x, 8, activation="silu", padding="same")
    gate = layers.Reshape((1, 1, 8))(layers.GlobalAveragePooling2D()(y))
    gate = layers.Conv2D(4, 1, activation="relu")(gate)
    gate = layers.Conv2D(8, 1, activation="sigmoid")(gate)
    return ended(x, conv_norm(layers.Multiply()([y, gate]), 6))


def operators():
    x = image()
    y, z = conv_norm(x, 8, padding="same"), conv_norm(x, 8, padding="same")
    return ended(x, conv_norm(ops.relu(y + z) * 0.5, 6))


def upsampled():
    x = image()
    y = layers.UpSampling2D(2)(conv_norm(x, 8))
    return ended(x, layers.Conv2DTranspose(6, 3, activation="relu")(y))


def permuted():
    x = image(8)
    y = layers.Permute((2, 1, 3))(conv_norm(x, 8))
    return ended(x, layers.PReLU(shared_axes=[1, 2])(conv_norm(layers.Cropping2D(1)(y), 6)))


def shared():
    x, twin = image(), layers.Conv2D(8, 3, activation="relu", padding="same")
    y = conv_norm(x, 3, padding="same")
    return ended(x, layers.Concatenate()([twin(x), twin(y)]))


def nested():
    x = image()
    inner = image(12)
    body = keras.Model(inner, conv_norm(conv_norm(inner, 8, padding="same"), 6), name="body")
    return ended(x, conv_norm(body(layers.Rescaling(2.0)(x)), 8))


def one_dimensional():
    x = layers.Input((20, 4))
    y = layers.Conv1D(8, 3, activation="relu")(x)
    y = layers.Conv1D(6, 3, padding="causal", activation="relu")(y)
    return ended(x, layers.GlobalMaxPooling1D()(y))


def reshaped():
    x = image(8)
    y = ops.reshape(layers.Conv2D(8, 3, activation="relu")(x), (-1, 36, 8))
    y = ops.reshape(layers.Dense(6, activation="relu")(y), (-1, 216))
    return ended(x, layers.Dense(10, activation="relu")(y))


def several_at_once():
    x = layers.Input((12,))
    y, z = layers.Identity()([layers.Dense(8, activation="relu")(x), layers.Dense(6)(x)])
    return ended(x, layers.Concatenate()([y, z]))


def sequential():
    return keras.Sequential(
        [
            image(8),
            layers.Conv2D(8, 3, activation="relu"),
            layers.BatchNormalization(),
            layers.Flatten(),
            layers.Dense(10, activation="tanh"),
            layers.Dense(3, name="out"),
        ]
    )


MODELS = [
    *(plain, padded, sigmoid_and_padding, residual, dense_block, inverted_bottleneck),
    *(strided_depthwise, separable, flattened, squeeze_excite, operators, upsampled, permuted),
    *(shared, nested, one_dimensional, reshaped, several_at_once, sequential),
]


def outputs(model, seed=3):
    rng = np.random.default_rng(seed)
    shape = model.inputs[0].shape[1:]
    # Each with a level and a scale of its own: of plain noise, pooling leaves next to nothing.
    level, scale = (rng.uniform(0.5, 2.0, size=(4, *[1] * len(shape))) for _ in range(2))
    x = (rng.normal(size=(4, *shape)) * scale + level).astype("float32")
    return ops.convert_to_numpy(model(x, training=False))


def depends_on_the_input(model):
    """Whether there is a signal; two networks in which it dies out on the way are always equal."""
    y = outputs(model)
    return np.ptp(y, axis=0).max() > 1e-3 * np.abs(y).max()


def settled(model):
    """Give batch norm the statistics of what really comes in."""
    norms = [layer for layer in model.layers if isinstance(layer, layers.BatchNormalization)]
    for norm in norms:
        norm.momentum = 0.0
    model(np.random.default_rng(5).normal(size=(16, *model.inputs[0].shape[1:])), training=True)
    for norm in norms:
        norm.momentum = 0.99
    return model


def assert_equal(first, second):
    a, b = outputs(first), outputs(second)
    assert np.abs(a - b).max() <= 1e-5 * np.abs(a).max()


@keras.saving.register_keras_serializable()
class Block(layers.Layer):
    """A layer that is made of others, and has weights of its own."""

    def __init__(self, units, **options):
        super().__init__(**options)
        self.units = units
        self.norm = layers.LayerNormalization()
        self.attention = layers.MultiHeadAttention(2, 8)
        self.up = layers.Dense(2 * units, activation="gelu", name="up")
        self.down = layers.Dense(units, name="down")

    def build(self, shape):
        self.mix = self.add_weight(shape=(shape[-1], 6), name="mix")
        self.back = self.add_weight(shape=(6, shape[-1]), name="back")
        super().build(shape)

    def call(self, x):
        y = self.norm(x)
        x = x + self.attention(y, y)
        x = x + self.down(self.up(x))
        return x + ops.matmul(ops.relu(ops.matmul(x, self.mix)), self.back)

    def get_config(self):
        return super().get_config() | {"units": self.units}


@keras.saving.register_keras_serializable()
class Net(keras.Model):
    def __init__(self, **options):
        super().__init__(**options)
        self.conv = layers.Conv2D(8, 3, padding="same", name="conv")
        self.norm = layers.BatchNormalization(name="norm")
        self.flat = layers.Reshape((-1, 8))
        self.wide = layers.Conv2D(8, 3, name="wide")
        self.block = Block(8, name="block")
        self.head = layers.Dense(3, name="head")

    def call(self, x, training=None):
        y = ops.relu(self.norm(self.conv(x), training=training))
        return self.head(ops.mean(self.block(self.flat(self.wide(y))), axis=1))


def subclassed():
    model = Net()
    model(np.ones((1, 6, 6, 3)))
    return model


def composite():
    x = layers.Input((5, 8))
    return keras.Model(x, layers.Dense(3, name="head")(Block(8, name="block")(x)))
