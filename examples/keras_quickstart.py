"""Keras quick start: half of the channels, and LiteRT files.

It trains a small Keras network on handwritten digits, prunes half of its channels, makes it
smaller, and exports it at each step.

Run it with `python examples/keras_quickstart.py` where prune-tf, TensorFlow and scikit-learn are
installed. It takes about half a minute on a CPU.
"""

import os
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from keras import layers
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from prune_tf import L1NormPruner, PruningSchedule, export_model, gzipped_size, shrink

SEED = 0
BATCH = 256  # images at once, where latency is measured


def load():
    """1347 images to learn from and 450 to be tested on; they come with scikit-learn."""
    pixels, labels = load_digits(return_X_y=True)
    images = pixels.reshape(-1, 8, 8, 1).astype("float32") / 16
    return train_test_split(images, labels, test_size=450, random_state=SEED, stratify=labels)


def build():
    """Three convolutions with batch norm and two dense layers for images of 8 × 8 pixels."""
    model = keras.Sequential([layers.Input((8, 8, 1))])
    for filters in (32, 64, 128):
        model.add(layers.Conv2D(filters, 3, padding="same", use_bias=False))
        model.add(layers.BatchNormalization(momentum=0.9))
        model.add(layers.ReLU())
        if filters > 32:
            model.add(layers.MaxPooling2D())
    model.add(layers.Flatten())
    model.add(layers.Dense(128, activation="relu"))
    model.add(layers.Dense(10, name="digit"))
    return model


def compile_for(model, rate):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(rate), loss, metrics=["accuracy"])


def milliseconds(model, images):
    images = keras.ops.convert_to_tensor(np.resize(images, (BATCH, 8, 8, 1)))
    times = []
    for _ in range(30):
        start = time.perf_counter()
        model.predict_on_batch(images)
        times.append(time.perf_counter() - start)
    return 1000 * sorted(times)[len(times) // 2]


def show(name, model, test, folder):
    accuracy = model.evaluate(*test, verbose=0, return_dict=True)["accuracy"]
    size = gzipped_size(export_model(model, folder / "model.tflite"))
    print(
        f"{name:<10} {accuracy:7.1%} {model.count_params():>12,} {size / 1024:>9.0f} kB "
        f"{milliseconds(model, test[0]):>9.2f}"
    )


def main():
    keras.utils.set_random_seed(SEED)
    images, test_images, labels, test_labels = load()
    train, test = (images, labels), (test_images, test_labels)
    model = build()
    compile_for(model, 1e-3)
    model.fit(*train, batch_size=64, epochs=10, verbose=0)
    print(f"{'':<10} {'accuracy':>7} {'parameters':>11} {'LiteRT.gz':>12} {'ms':>9}")
    with tempfile.TemporaryDirectory() as folder:
        show("dense", model, test, Path(folder))
        pruner = L1NormPruner(
            model,
            [
                {"sparsity": 0.5, "op_types": ["Conv2D", "Dense"]},
                {"exclude": True, "op_names": ["digit"]},
            ],
        )
        compile_for(model, 1e-3)
        steps = 4 * -(-len(images) // 64)
        schedule = PruningSchedule(pruner, end_step=steps, frequency=10, curve="cubic")
        model.fit(*train, batch_size=64, epochs=6, verbose=0, callbacks=[schedule])
        show("masked", model, test, Path(folder))
        report = shrink(model)
        show("smaller", report.model, test, Path(folder))
    print(f"\nlargest difference between masked and smaller: {report.difference:.0e}")


if __name__ == "__main__":
    main()
