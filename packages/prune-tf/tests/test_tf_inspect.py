"""`prune inspect` on Keras models: in a file, and in a module of the folder one stands in."""

import json
import sys

import pytest
from keras_networks import plain

from prune_core import ConfigError, SpeedupError

pytest.importorskip("typer", reason="the command line needs prune-core[cli]")

from prune_speedup.inspect_command import command

MODELS = """
import keras
from keras import layers

def dense():
    return keras.Sequential([layers.Input((3,)), layers.Dense(8, name="a"), layers.Dense(2)])

class Own(keras.Model):
    def __init__(self):
        super().__init__()
        self.a, self.b = layers.Dense(8, name="a"), layers.Dense(2, name="b")

    def call(self, x):
        return self.b(self.a(x))

def nothing():
    return 3
"""


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "keras_zoo.py").write_text(MODELS)
    yield
    sys.modules.pop("keras_zoo", None)


def test_a_file_of_keras(capsys):
    plain().save("model.keras")
    command("model.keras", as_json=True)
    groups = json.loads(capsys.readouterr().out)["groups"]
    assert [group["units"] for group in groups] == [8, 12, 8]
    assert {"tensor": "out/kernel", "axis": 0} in groups[-1]["axes"]


@pytest.mark.parametrize(("target", "inputs"), [("dense", None), ("Own", ["4,3"])])
def test_what_a_module_makes(capsys, target, inputs):
    command(f"keras_zoo:{target}", inputs)
    assert "a/kernel[1]: 8 units" in capsys.readouterr().out.splitlines()[0]


@pytest.mark.parametrize(
    ("target", "inputs", "says"),
    [
        ("nothing.keras", None, "nothing.keras does not exist. Did you mean 'broken.keras'"),
        ("broken.keras", None, "cannot be read as a Keras model"),
        ("keras_zoo:dense", ["1,3:float23"], "numpy has no such type"),
        ("keras_zoo:Own", None, "has no weights yet"),
        ("keras_zoo:Own", ["4,3:int7"], "numpy has no such type"),
        ("keras_zoo:nothing", None, "no torch module and no Keras model"),
    ],
)
def test_mistakes_end_in_one_sentence(tmp_path, target, inputs, says):
    (tmp_path / "broken.keras").write_text("no zip file")
    with pytest.raises((ConfigError, SpeedupError), match=says):
        command(target, inputs)
