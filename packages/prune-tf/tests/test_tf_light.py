"""prune-tf works without torch, and knows its masks in a fresh process."""

import subprocess
import sys

import pytest

from prune_tf import LevelPruner

USE_EVERYTHING = """
import sys
import keras, numpy as np, prune_tf
from prune_core import get_pruner
model = keras.Sequential([keras.layers.Input((8,)), keras.layers.Dense(4, name="fc")])
rules = [{"sparsity": 0.5, "op_types": ["default"]}]
pruner = get_pruner("level", framework="keras")(model, rules)
pruner.compress()
pruner.save_masks(sys.argv[1])
pruner.load_masks(sys.argv[1])
assert all(getattr(prune_tf, name) is not None for name in prune_tf.__all__)
assert "torch" not in sys.modules
"""
LOAD = """
import sys
import keras, prune_tf
print(sorted(prune_tf.masks_of(keras.models.load_model(sys.argv[1]))))
"""


@pytest.mark.tensorflow("Keras itself imports another framework")
def test_using_prune_tf_never_imports_torch(tmp_path):
    subprocess.run(
        [sys.executable, "-c", USE_EVERYTHING, tmp_path / "masks.safetensors"], check=True
    )


def test_a_fresh_process_loads_a_masked_model(cnn, tmp_path):
    LevelPruner(cnn, [{"sparsity": 0.5, "op_types": ["Conv2D"]}]).compress()
    cnn.save(tmp_path / "model.keras")
    loaded = subprocess.run(
        [sys.executable, "-c", LOAD, tmp_path / "model.keras"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert loaded.stdout.split("\n")[-2] == "['conv']"
