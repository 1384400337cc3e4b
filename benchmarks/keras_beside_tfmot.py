"""Beside tensorflow-model-optimization: the same network, data, sparsity and schedule.

    python benchmarks/keras_beside_tfmot.py [--peer path/to/python]

Both train the quick start's network on scikit-learn's digits and prune single weights by magnitude,
from nothing to 80 % of all layers but the last, along the same cubic curve, at the same steps.
Printed are accuracy before and after, the sparsity of what is exported, its size as LiteRT after
gzip, and the time of a training step with and without pruning (on a quiet machine only).

tensorflow-model-optimization knows nothing of Keras 3, so it runs with tf_keras in an environment
of its own. The interpreter of such an environment is `--peer`; without it, one is made in a
temporary folder (a minute, 1.5 GB).
"""

import argparse
import gzip
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

SEEDS = range(5)
SPARSITY, POWER, EVERY = 0.8, 3, 10
BATCH, EPOCHS, LONGER = 64, 10, 12
PEER = ["tensorflow-model-optimization==0.8.1", "tf_keras"]
NEEDED_BY_PEER = ["tensorflow-cpu", "absl-py", "dm-tree", "scikit-learn", "scipy", "six"]


def build(keras):
    """The network of examples/keras_quickstart.py, for Keras 3 or tf_keras."""
    layers = keras.layers
    model = keras.Sequential([keras.Input((8, 8, 1))])
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


def data():
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    pixels, labels = load_digits(return_X_y=True)
    images = pixels.reshape(-1, 8, 8, 1).astype("float32") / 16
    return train_test_split(images, labels, test_size=450, random_state=0, stratify=labels)


def compiled(keras, model):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-3), loss, metrics=["accuracy"])
    return model


def trained(keras, model, train, epochs, callbacks=()):
    """Fit, and return the median time of a step in milliseconds; the first epoch compiles."""
    times = []

    class Clock(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            self.start = time.perf_counter()

        def on_epoch_end(self, epoch, logs=None):
            times.append(time.perf_counter() - self.start)

    model.fit(*train, batch_size=BATCH, epochs=epochs, verbose=0, callbacks=[*callbacks, Clock()])
    return 1000 * statistics.median(times[1:]) / steps_in(train, 1)


def steps_in(train, epochs):
    return epochs * -(-len(train[0]) // BATCH)


def prune_with_prune_tf(keras, model, train, end):
    from prune_tf import LevelPruner, PruningSchedule, polynomial, unwrap

    rules = [
        {"sparsity": SPARSITY, "op_types": ["Conv2D", "Dense"]},
        {"exclude": True, "op_names": ["digit"]},
    ]
    pruner = LevelPruner(model, rules)
    schedule = PruningSchedule(pruner, end, frequency=EVERY, curve=polynomial(POWER))
    step = trained(keras, compiled(keras, model), train, LONGER, [schedule])
    return unwrap(model), step


def prune_with_tfmot(keras, model, train, end):
    from tensorflow_model_optimization.sparsity.keras import (
        PolynomialDecay,
        UpdatePruningStep,
        prune_low_magnitude,
        strip_pruning,
    )

    curve = PolynomialDecay(0.0, SPARSITY, begin_step=0, end_step=end, power=POWER, frequency=EVERY)

    def wrapped(layer):
        chosen = isinstance(layer, keras.layers.Conv2D | keras.layers.Dense)
        return prune_low_magnitude(layer, curve) if chosen and layer.name != "digit" else layer

    weights = model.get_weights()
    model = keras.models.clone_model(model, clone_function=wrapped)
    strip_pruning(model).set_weights(weights)
    step = trained(keras, compiled(keras, model), train, LONGER, [UpdatePruningStep()])
    return compiled(keras, strip_pruning(model)), step


def run(prune, keras, seed):
    import tensorflow as tf

    keras.utils.set_random_seed(seed)
    images, test_images, labels, test_labels = data()
    train, test = (images, labels), (test_images, test_labels)
    model = compiled(keras, build(keras))
    dense_step = trained(keras, model, train, EPOCHS)
    before = model.evaluate(*test, verbose=0, return_dict=True)["accuracy"]
    dense_size = size(tf, model)
    # A multiple of EVERY, so that both prune at the very end.
    end = steps_in(train, LONGER - 4) // EVERY * EVERY
    model, step = prune(keras, model, train, end)
    kernels = [
        layer.get_weights()[0]
        for layer in model.layers
        if isinstance(layer, keras.layers.Conv2D | keras.layers.Dense) and layer.name != "digit"
    ]
    return {
        "accuracy, dense": before,
        "accuracy, pruned": model.evaluate(*test, verbose=0, return_dict=True)["accuracy"],
        "sparsity": 1 - sum((k != 0).sum() for k in kernels) / sum(k.size for k in kernels),
        "kB, dense": dense_size,
        "kB, pruned": size(tf, model),
        "ms a step, dense": dense_step,
        "ms a step, pruned": step,
    }


def size(tf, model):
    """Kilobytes as a LiteRT file after gzip."""
    with tempfile.TemporaryDirectory() as folder:
        # By way of a SavedModel, which both write; from_keras_model knows but one of the two.
        model.export(folder)
        written = tf.lite.TFLiteConverter.from_saved_model(folder).convert()
    return len(gzip.compress(written, mtime=0)) / 1024


def all_seeds(which):
    """Run in the environment of one of the two, and print figures as JSON."""
    if which == "tfmot":
        import tf_keras as keras

        results = [run(prune_with_tfmot, keras, seed) for seed in SEEDS]
    else:
        import keras

        results = [run(prune_with_prune_tf, keras, seed) for seed in SEEDS]
    print(json.dumps(results, default=float))


def measured(python, which):
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_USE_LEGACY_KERAS": "1" if which == "tfmot" else "0"}
    done = subprocess.run(
        [python, __file__, "--measure", which],
        env=os.environ | quiet,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def make_peer(folder):
    venv.create(folder, with_pip=True)
    python = str(Path(folder) / "bin" / "python")
    pip = [python, "-m", "pip", "install", "--quiet"]
    subprocess.run([*pip, *NEEDED_BY_PEER], check=True)
    # tf_keras asks for the TensorFlow that has everything, beside the one for processors.
    subprocess.run([*pip, "--no-deps", *PEER], check=True)
    return python


def show(rows):
    """Print mean and range over the seeds as a markdown table; of times, the median."""
    keys = list(next(iter(rows.values()))[0])
    print("| | " + " | ".join(rows) + " |\n|" + " --- |" * (len(rows) + 1))
    for key in keys:
        cells = []
        for results in rows.values():
            values = [result[key] for result in results]
            if key.startswith(("accuracy", "sparsity")):
                span = f" ({min(values):.1%} to {max(values):.1%})" if "acc" in key else ""
                cells.append(f"{statistics.mean(values):.1%}{span}")
            elif key.startswith("kB"):
                cells.append(f"{statistics.mean(values):.0f}")
            else:
                cells.append(f"{statistics.median(values):.2f}")
        print(f"| {key} | " + " | ".join(cells) + " |")


def main():
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("--peer", help="an interpreter that has tensorflow-model-optimization")
    options.add_argument("--measure", choices=("prune-tf", "tfmot"), help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.measure:
        all_seeds(chosen.measure)
        return
    with tempfile.TemporaryDirectory() as folder:
        peer = chosen.peer or make_peer(folder)
        rows = {
            "prune-tf, Keras 3": measured(sys.executable, "prune-tf"),
            "tensorflow-model-optimization, tf_keras": measured(peer, "tfmot"),
        }
    show(rows)


if __name__ == "__main__":
    main()
