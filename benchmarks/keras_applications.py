"""Speedup of every family of keras.applications, as the table of docs/keras/applications.md.

    python benchmarks/keras_applications.py [model ...]

Weights are random. Half of the output channels of every convolution are masked by L1 norm; then
batch norm gets scales and offsets that vary, and the statistics of what really comes in, as after
fine-tuning. Both models are compared on random images, on which their outputs must depend.
"""

import os
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from keras import applications

from prune_core import SpeedupError
from prune_tf import L1NormPruner, shrink

CONVOLUTIONS = {"Conv2D", "SeparableConv2D", "DepthwiseConv2D"}
SMALLEST = {"InceptionV3": 75, "InceptionResNetV2": 75, "Xception": 71}
SIZE = 64
FAMILIES = {
    "VGG": ("VGG16", "VGG19"),
    "ResNet": ("ResNet50", "ResNet101", "ResNet152"),
    "ResNet V2": ("ResNet50V2", "ResNet101V2", "ResNet152V2"),
    "DenseNet": ("DenseNet121", "DenseNet169", "DenseNet201"),
    "Inception": ("InceptionV3", "InceptionResNetV2"),
    "Xception": ("Xception",),
    "MobileNet": ("MobileNet", "MobileNetV2", "MobileNetV3Small", "MobileNetV3Large"),
    "NASNet": ("NASNetMobile",),
    "EfficientNet": ("EfficientNetB0", "EfficientNetB3"),
    "EfficientNet V2": ("EfficientNetV2B0", "EfficientNetV2S"),
    "ConvNeXt": ("ConvNeXtTiny",),
}


def realistic(model, seed=0):
    """Give batch norm scales and offsets, and statistics of what really comes in.

    Statistics made up at random would let the signal die out on the way through a deep network,
    and then any two models are equal.
    """
    rng = np.random.default_rng(seed)
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    for layer in norms:
        count = layer.moving_mean.shape
        if layer.scale:
            layer.gamma.assign(rng.uniform(0.5, 1.5, size=count))
        if layer.center:
            layer.beta.assign(rng.normal(size=count) * 0.3)
    for layer in model.layers:
        if type(layer).__name__ == "LayerScale":
            # It starts at 1e-6, which would hide whatever goes wrong in its branch.
            layer.gamma.assign(rng.uniform(0.5, 1.5, size=layer.gamma.shape))
    momenta = [layer.momentum for layer in norms]
    for layer in norms:
        layer.momentum = 0.0
    model(images(model, 16), training=True)
    for layer, momentum in zip(norms, momenta, strict=True):
        layer.momentum = momentum
    return model


def images(model, count):
    """Random images, each with a brightness and contrast of its own."""
    rng = np.random.default_rng(1)
    shape = (count, *model.input.shape[1:])
    contrast, brightness = (rng.uniform(0.5, 2, size=(count, 1, 1, 3)) for _ in range(2))
    return (rng.normal(size=shape) * contrast + brightness).astype("float32")


def spread(model):
    """By how much outputs differ from image to image, relative to the largest."""
    outputs = keras.ops.convert_to_numpy(model(images(model, 4), training=False))
    return np.ptp(outputs, axis=0).max() / np.abs(outputs).max()


WAYS = (
    ("normal", "keep"),
    ("normal", "zero"),
    ("dependency_aware", "zero"),
)


def masked(name, mode):
    """Build a model and mask half of its channels."""
    size = SMALLEST.get(name, SIZE)
    keras.utils.set_random_seed(0)
    model = getattr(applications, name)(
        weights=None, input_shape=(size, size, 3), classes=10, classifier_activation=None
    )
    present = {type(layer).__name__ for layer in model.layers}
    rules = [{"sparsity": 0.5, "op_types": sorted(CONVOLUTIONS & present)}]
    if name.startswith("ConvNeXt"):
        # Its width lies in dense layers; the last one is the classifier.
        rules = [
            {"sparsity": 0.5, "op_types": ["Dense"]},
            {"exclude": True, "op_names": [model.layers[-1].name]},
        ]
    L1NormPruner(model, rules, mode).compress()
    return realistic(model)


def row(name):
    """Mask and shrink one model in every way."""
    cells = [name]
    for mode, constants in WAYS:
        model = masked(name, mode)
        if len(cells) == 1:
            cells.append(f"{model.count_params() / 1e6:.2f}")
        start = time.perf_counter()
        try:
            report = shrink(model, images(model, 4), constants=constants, tolerance=1e-4)
        except SpeedupError as error:
            cells += [f"refused: {error}", ""]
            continue
        share = report.parameters[1] / report.parameters[0]
        cells += [f"{share:.0%}", f"{report.difference:.0e}"]
        seconds, moving = time.perf_counter() - start, spread(report.model)
        print(f"{name} {mode} {constants}: {seconds:.0f} s, {moving:.2g}", file=sys.stderr)
        if moving < 0.01:
            cells[-1] = "outputs do not depend on the image"
        if report.unknown:
            kinds = sorted(set(report.unknown.values()))
            print(f"{name}: no rule for {', '.join(kinds)}", file=sys.stderr)
        keras.backend.clear_session()
    return cells


def main():
    names = sys.argv[1:] or [name for family in FAMILIES.values() for name in family]
    heading = ["model", "parameters (M)"]
    for way in ("each layer by itself, constants kept", "constants zeroed", "chosen together"):
        heading += [f"left: {way}", "difference"]
    print("| " + " | ".join(heading) + " |")
    print("|" + " --- |" * len(heading))
    for name in names:
        print("| " + " | ".join(row(name)) + " |", flush=True)


if __name__ == "__main__":
    main()
