"""Speedup of every family of keras.applications, as a table for the documentation.

    python benchmarks/keras_applications.py [family ...] > docs/keras/applications.md

Weights are random and statistics of batch norm are not those of a fresh model (means, variances,
scales and offsets all vary), half of the output channels of every convolution are masked by L1
norm, and both models are compared on random images.
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
    """Give batch norm the statistics, scales and offsets of a model that has been trained."""
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            count = layer.moving_mean.shape
            layer.moving_mean.assign(rng.normal(size=count) * 0.3)
            layer.moving_variance.assign(rng.uniform(0.5, 2.0, size=count))
            if layer.scale:
                layer.gamma.assign(rng.uniform(0.5, 1.5, size=count))
            if layer.center:
                layer.beta.assign(rng.normal(size=count) * 0.3)
        if type(layer).__name__ == "LayerScale":
            # It starts at 1e-6, which would hide whatever goes wrong in its branch.
            layer.gamma.assign(rng.uniform(0.5, 1.5, size=layer.gamma.shape))
    return model


def row(name):
    """Build, prune and shrink one model."""
    size = SMALLEST.get(name, SIZE)
    model = getattr(applications, name)(
        weights=None, input_shape=(size, size, 3), classes=10, classifier_activation=None
    )
    realistic(model)
    present = {type(layer).__name__ for layer in model.layers}
    rules = [{"sparsity": 0.5, "op_types": sorted(CONVOLUTIONS & present)}]
    if name.startswith("ConvNeXt"):
        # Its width lies in dense layers; the last one is the classifier.
        rules = [
            {"sparsity": 0.5, "op_types": ["Dense"]},
            {"exclude": True, "op_names": [model.layers[-1].name]},
        ]
    L1NormPruner(model, rules).compress()
    cells = [name, f"{model.count_params() / 1e6:.2f}"]
    for normalization in ("keep", "mask"):
        start = time.perf_counter()
        try:
            report = shrink(model, normalization=normalization, tolerance=1e-4)
        except SpeedupError as error:
            cells += [f"refused: {error}", ""]
            continue
        share = report.parameters[1] / report.parameters[0]
        cells += [f"{share:.0%}", f"{report.difference:.0e}"]
        cells[-1] += f" ({time.perf_counter() - start:.0f} s)"
        if report.difference is None or report.unknown:
            kinds = sorted(set(report.unknown.values()))
            print(f"{name}: no rule for {', '.join(kinds)}", file=sys.stderr)
    keras.backend.clear_session()
    return cells


def main():
    names = sys.argv[1:] or [name for family in FAMILIES.values() for name in family]
    heading = ["model", "parameters (M)", "left", "difference", "left, norms masked", "difference"]
    print("| " + " | ".join(heading) + " |")
    print("|" + " --- |" * len(heading))
    for name in names:
        print("| " + " | ".join(row(name)) + " |", flush=True)


if __name__ == "__main__":
    main()
