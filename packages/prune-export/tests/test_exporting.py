"""Models in any registered format: without wrappers, whole or not at all."""

import sys
from types import ModuleType

import pytest
import torch
from torch import nn

from prune_core import (
    ConfigError,
    MissingDependencyError,
    PluginError,
    PruneError,
    Reference,
    UnknownNameError,
    export,
    hookimpl,
)
from prune_core.masking import PrunerModuleWrapper, replace_modules
from prune_core.registry import registered
from prune_core.testing import ConvNet, check_exporter, make_batch, make_toy
from prune_export import states


def pickled(model, path, example_inputs=None, beside=False):
    torch.save(model, path)
    if beside:
        path.with_suffix(".more").write_text("more")


def lazy(model, path, example_inputs=None):
    """Writes nothing."""


def fails(model, path, example_inputs=None):
    path.write_text("half")
    raise ConfigError("it cannot")


class Exporters:
    @hookimpl
    def prune_register_exporters(self):
        return {name: Reference(f"acme_export:{name}") for name in ("pickled", "lazy", "fails")}


@pytest.fixture
def acme(monkeypatch):
    module = ModuleType("acme_export")
    module.pickled, module.lazy, module.fails = pickled, lazy, fails
    monkeypatch.setitem(sys.modules, "acme_export", module)
    with registered(Exporters(), "acme"):
        yield


@pytest.fixture
def masked():
    """A toy of which three channels are masked."""
    model = make_toy(ConvNet)
    wrapper = PrunerModuleWrapper(model.conv1, "conv1", {})
    mask = torch.ones_like(model.conv1.weight)
    mask[[1, 2, 5]] = 0
    wrapper.set_masks({"weight": mask})
    replace_modules(model, {model.conv1: wrapper})
    return model


@pytest.mark.parametrize("ending", ["pt", "pth", "safetensors"])
def test_a_state_dict_is_that_of_the_plain_model_with_zeros(masked, ending, tmp_path):
    path = export(masked, tmp_path / "made" / f"model.{ending}")
    if ending == "safetensors":
        from safetensors.torch import load_file

        state = load_file(path)
    else:
        state = torch.load(path, weights_only=True)
    plain = make_toy(ConvNet)
    plain.load_state_dict(state)
    assert int((plain.conv1.weight.flatten(1) == 0).all(1).sum()) == 3
    x = make_batch(ConvNet)[0]
    torch.testing.assert_close(plain.eval()(x), masked.eval()(x))
    assert sorted(file.name for file in path.parent.iterdir()) == [path.name]


def test_a_registered_exporter_gets_a_plain_copy_in_eval_mode(masked, acme, tmp_path):
    masked.train()
    path = export(masked, tmp_path / "model.bin", format="pickled", beside=True)
    written = torch.load(path, weights_only=False)
    assert type(written.conv1) is nn.Conv2d
    assert not written.training
    assert masked.training
    assert (tmp_path / "model.more").read_text() == "more"
    export(masked, path, format="acme:pickled")


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"path": "model.onx"}, UnknownNameError, "no exporter 'onx'. Did you mean 'onnx'"),
        ({"path": "model"}, UnknownNameError, "'model' has no ending; registered exporters are"),
        ({"path": "model.lazy"}, PluginError, "'lazy' has not written 'model.lazy'"),
        ({"path": "model.fails"}, ConfigError, "it cannot"),
        ({"path": "m.pt", "model": "a model"}, ConfigError, "model is 'a model'; it must be"),
    ],
)
def test_what_cannot_be_written_leaves_nothing(options, error, says, acme, tmp_path):
    kept = tmp_path / "model.fails"
    kept.write_text("old")
    model = options.get("model", nn.Linear(2, 2))
    with pytest.raises(error, match=says):
        export(model, tmp_path / options["path"])
    assert kept.read_text() == "old"
    assert list(tmp_path.iterdir()) == [kept]


@pytest.mark.parametrize(
    ("example", "error"),
    [
        (None, "ONNX is made by tracing the model: give example_inputs"),
        (torch.rand(2, 3), "The model does not run on example_inputs: "),
    ],
)
def test_onnx_needs_an_input_that_fits(example, error, tmp_path):
    with pytest.raises(ConfigError, match=error):
        export(make_toy(ConvNet), tmp_path / "model.onnx", example)


def test_onnx_says_what_it_needs(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(MissingDependencyError, match="pip install 'prune-export\\[onnx\\]'"):
        export(make_toy(ConvNet), tmp_path / "model.onnx", make_batch(ConvNet)[0])


def test_the_exporters_of_prune_pass():
    def read(path):
        model = make_toy(ConvNet).eval()
        model.load_state_dict(torch.load(path, weights_only=True))
        return model

    check_exporter(states.state_dict, "pt", read=read)
    check_exporter(states.safetensors, "safetensors")


def trains(model, path, example_inputs=None):
    model.train()
    with torch.no_grad():
        model.fc.bias.add_(1.0)
    torch.save(model.state_dict(), path)


def traces(model, path, example_inputs):
    model(example_inputs)
    torch.save(model.state_dict(), path)


@pytest.mark.parametrize(
    ("exporter", "read", "says"),
    [
        (lazy, None, r"file: it has not written 'model.x'; in the folder is \[\]"),
        (trains, None, r"model: the model has changed: fc.bias"),
        (traces, None, r"inputs: without example_inputs it raises \w+Error"),
        (pickled, lambda path: lambda x: torch.zeros(len(x), 10), "output: its output differs"),
        (pickled, lambda path: lambda x: torch.zeros(2, 10), r"output: it returns \(2, 10\) for"),
    ],
)
def test_an_unsound_exporter_is_caught(exporter, read, says):
    with pytest.raises(AssertionError, match=says):
        check_exporter(exporter, "x", read=read)


def test_every_failure_is_an_error_of_prune(acme, tmp_path):
    with pytest.raises(PruneError):
        export(nn.Linear(2, 2), tmp_path / "model.nothing")
