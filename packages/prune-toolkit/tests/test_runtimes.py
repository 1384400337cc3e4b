"""What other runtimes read computes what the model computes."""

import sys

import pytest
import torch
from torch import nn

from prune_core import ConfigError, MissingDependencyError, export

pytestmark = pytest.mark.filterwarnings("ignore")  # the runtimes warn of their own code


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)
    ).eval()


def test_openvino_for_any_batch(tmp_path):
    openvino = pytest.importorskip("openvino")
    model, x, other = network(), torch.rand(2, 2, 4, 4), torch.rand(3, 2, 4, 4)
    path = export(model, tmp_path / "model.xml", x)
    assert (tmp_path / "model.bin").exists()
    exact = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(path, "CPU", exact)
    found = torch.from_numpy(compiled([other.numpy()])[0])
    with torch.no_grad():
        torch.testing.assert_close(found, model(other))


def test_executorch(tmp_path):
    runtime = pytest.importorskip("executorch.runtime")
    model, x, other = network(), torch.rand(1, 2, 4, 4), torch.rand(1, 2, 4, 4)
    path = export(model, tmp_path / "model.pte", x)
    method = runtime.Runtime.get().load_program(path).load_method("forward")
    with torch.no_grad():
        torch.testing.assert_close(method.execute([other])[0], model(other))


@pytest.mark.parametrize(("ending", "library"), [("xml", "openvino"), ("pte", "executorch.exir")])
def test_what_is_missing_is_named(tmp_path, monkeypatch, ending, library):
    monkeypatch.setitem(sys.modules, library, None)
    extra = library.partition(".")[0]
    with pytest.raises(MissingDependencyError, match=rf"prune-core\[{extra}\]"):
        export(network(), tmp_path / f"model.{ending}", torch.rand(1, 2, 4, 4))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("ending", "library"), [("xml", "openvino"), ("pte", "executorch.exir")])
def test_inputs_are_asked_for(tmp_path, ending, library):
    pytest.importorskip(library)
    with pytest.raises(ConfigError, match="give example_inputs"):
        export(network(), tmp_path / f"model.{ending}")


def test_gguf_is_for_language_models(tmp_path):
    pytest.importorskip("gguf")
    with pytest.raises(ConfigError, match="Sequential cannot be written as GGUF; llama, mistral"):
        export(network(), tmp_path / "model.gguf")
    assert not list(tmp_path.iterdir())
