"""Call forms of NNI, the training loop, the files, and what is refused."""

import copy
import pickle

import pytest
import torch
from torch import nn

from prune_core import ConfigError, OptionError, PruneError, PruneWarning, masked_state_dict
from prune_core.masking import PrunerModuleWrapper, replace_modules
from prune_core.testing import ConvNet, make_batch, make_toy
from prune_quant import (
    BNNQuantizer,
    DoReFaQuantizer,
    LsqQuantizer,
    NaiveQuantizer,
    ObserverQuantizer,
    QAT_Quantizer,
)

WEIGHT = {"quant_types": ["weight"], "quant_bits": 8, "op_types": ["default"]}
INPUT = {**WEIGHT, "quant_types": ["weight", "input"]}


def steps(model, optimizer, count=2):
    images, labels = make_batch(ConvNet, 8)
    for _ in range(count):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model.train()(images), labels).backward()
        optimizer.step()


def sgd(model):
    return torch.optim.SGD(model.parameters(), lr=0.05)


@pytest.mark.parametrize("kind", [QAT_Quantizer, LsqQuantizer, DoReFaQuantizer])
def test_as_nni_has_it(kind, tmp_path):
    model = make_toy(ConvNet)
    rules = [
        {"quant_types": ["weight"], "quant_bits": {"weight": 8}, "op_types": ["Conv2d", "Linear"]},
        {"quant_types": ["output"], "quant_bits": 8, "op_types": ["ReLU"]},
    ]
    optimizer = sgd(model)
    quantizer = kind(model, rules, optimizer)
    assert quantizer.compress() is model
    steps(model, optimizer)
    files = tmp_path / "model.pth", tmp_path / "calibration.pth"
    returned = quantizer.export_model(*files)
    plain = make_toy(ConvNet)
    plain.load_state_dict(torch.load(files[0]))
    for name in ("conv1", "conv2", "fc"):
        rounded = model.get_submodule(name).weight
        torch.testing.assert_close(plain.get_submodule(name).weight, rounded)
        assert not torch.equal(rounded, model.get_submodule(name).module.weight)
    calibration = torch.load(files[1])
    assert calibration.keys() == returned.keys() == quantizer.get_modules_wrapper().keys()
    assert calibration["conv1"]["weight_bits"] == 8
    assert type(model.conv1).__name__ == "QuantizerModuleWrapper"  # it goes on training


def test_outputs_of_layers_without_a_weight():
    model = nn.Sequential(nn.Linear(4, 4), nn.Hardtanh(), nn.Linear(4, 2))
    rules = [
        {"quant_types": ["weight"], "quant_bits": 1, "op_types": ["Linear"]},
        {"quant_types": ["output"], "quant_bits": 1, "op_types": ["Hardtanh"]},
    ]
    BNNQuantizer(model, rules, sgd(model)).compress()
    out = model[1](model[0](torch.randn(8, 4)))
    assert set(out.flatten().tolist()) == {-1.0, 1.0}


def test_a_dummy_input_is_understood_and_has_no_effect():
    with pytest.warns(PruneWarning, match="dummy_input=.* has no effect.*fuse_conv_bn"):
        QAT_Quantizer(make_toy(ConvNet), [WEIGHT], None, torch.rand(1, 3, 8, 8))


def test_observing_is_what_compress_needs():
    model = make_toy(ConvNet).eval()
    quantizer = ObserverQuantizer(model, [INPUT])
    with pytest.raises(PruneError, match="The input of 'conv1' has not been seen"):
        quantizer.compress()
    images, _ = make_batch(ConvNet, 8)
    before = model(images)
    torch.testing.assert_close(model(images), before)  # looking changes nothing
    quantizer.compress()
    low, high = model.conv1.input_quantizer.range
    assert low < -1
    assert high > 1
    assert float(low) >= float(images.min()) * 1.02
    assert not torch.equal(model(images), before)


def test_before_the_first_batch_ranges_are_unknown():
    model = make_toy(ConvNet)
    quantizer = QAT_Quantizer(model, [INPUT])
    quantizer.compress()
    model.eval()(make_batch(ConvNet)[0])  # an evaluation before training teaches nothing
    with pytest.raises(PruneError, match="The input of 'conv1' has no range yet"):
        quantizer.convert()
    assert "not active" not in repr(model)


def test_quantising_begins_at_a_step():
    model = make_toy(ConvNet)
    optimizer = sgd(model)
    quantizer = QAT_Quantizer(model, [{**WEIGHT, "quant_start_step": 2}], optimizer)
    quantizer.compress()
    steps(model, optimizer, 1)
    assert not model.conv1.weight_quantizer.active
    with pytest.raises(PruneError, match="before step 2.* has made 1"):
        quantizer.convert()
    steps(model, optimizer, 1)
    assert model.conv1.weight_quantizer.active


def test_steps_are_added_to_the_optimizer_and_trained():
    model = make_toy(ConvNet)
    optimizer = sgd(model)
    quantizer = LsqQuantizer(model, [INPUT], optimizer)
    quantizer.compress()
    assert optimizer.param_groups[1]["weight_decay"] == 0
    steps(model, optimizer, 1)
    before = [p.detach().clone() for p in optimizer.param_groups[1]["params"]]
    steps(model, optimizer, 1)
    after = optimizer.param_groups[1]["params"]
    assert not any(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_masks_are_respected_and_files_have_plain_names(tmp_path):
    model = make_toy(ConvNet)
    wrapper = PrunerModuleWrapper(model.conv1, "conv1", {})
    mask = torch.rand(model.conv1.weight.shape) < 0.5
    wrapper.set_masks({"weight": mask})
    replace_modules(model, {model.conv1: wrapper})
    optimizer = sgd(model)
    quantizer = QAT_Quantizer(model, [INPUT], optimizer)
    quantizer.compress()
    steps(model, optimizer)
    assert not model.conv1.weight[~mask].any()
    quantizer.export_model(tmp_path / "model.safetensors")
    assert quantizer.unwrap().conv1 is wrapper
    assert not masked_state_dict(model)["conv1.weight"][~mask].any()


def test_pickled_and_reset():
    model = make_toy(ConvNet)
    quantizer = NaiveQuantizer(model, [WEIGHT])
    quantizer.compress()
    images, _ = make_batch(ConvNet)
    again = pickle.loads(pickle.dumps(model))
    torch.testing.assert_close(again.eval()(images), model.eval()(images))
    other = make_toy(ConvNet)
    quantizer.reset(other, [WEIGHT])
    assert type(model.conv1) is nn.Conv2d
    assert type(other.conv1).__name__ == "QuantizerModuleWrapper"


def test_masks_taken_off_meanwhile_are_told():
    model = make_toy(ConvNet)
    wrapper = PrunerModuleWrapper(model.conv1, "conv1", {})
    replace_modules(model, {model.conv1: wrapper})
    quantizer = NaiveQuantizer(model, [{**WEIGHT, "op_types": ["Conv2d"], "op_names": ["conv1"]}])
    quantizer.unwrap()
    replace_modules(model, {wrapper: wrapper.module})
    with pytest.raises(PruneError, match="were replaced since.*reset"):
        quantizer.compress()


def test_a_config_from_a_file(tmp_path):
    pytest.importorskip("yaml")
    path = tmp_path / "rules.yml"
    path.write_text("- quant_types: [weight]\n  quant_bits: 4\n  op_types: [Conv2d]\n")
    quantizer = NaiveQuantizer(make_toy(ConvNet), path)
    assert list(quantizer.get_modules_wrapper()) == ["conv1", "conv2"]


@pytest.mark.parametrize(
    ("kind", "rule", "says"),
    [
        (QAT_Quantizer, {**WEIGHT, "sparsity": 0.5}, "how much to prune, which a quantizer"),
        (QAT_Quantizer, {**WEIGHT, "final_sparsity": 0.5}, "how much to prune"),
        (QAT_Quantizer, {**WEIGHT, "quant_bit": 8}, "Did you mean 'quant_bits'"),
        (QAT_Quantizer, {**WEIGHT, "quant_scheme": "x"}, "symmetrically for each output channel"),
        (NaiveQuantizer, {**WEIGHT, "quant_start_step": 1}, "Only quantizers that train know it"),
        (QAT_Quantizer, {**WEIGHT, "quant_start_step": -1}, "at least 0"),
        (QAT_Quantizer, {**WEIGHT, "quant_types": "weight"}, r"write \['weight'\]"),
        (QAT_Quantizer, {**WEIGHT, "quant_types": ["weight", "weight"]}, "at most once"),
        (QAT_Quantizer, {"quant_bits": 8, "op_types": ["default"]}, "what to quantise"),
        (QAT_Quantizer, {**WEIGHT, "quant_bits": 1}, "QAT_Quantizer takes 2 to 16"),
        (BNNQuantizer, WEIGHT, "BNNQuantizer takes 1 and nothing else"),
        (QAT_Quantizer, {**WEIGHT, "quant_bits": True}, "whole number"),
        (QAT_Quantizer, {**INPUT, "quant_bits": {"weight": 8}}, "says nothing of it"),
        (QAT_Quantizer, {**WEIGHT, "quant_bits": {"weight": 8, "output": 4}}, "add it there"),
        (NaiveQuantizer, INPUT, "NaiveQuantizer quantises weight only"),
        (QAT_Quantizer, {**WEIGHT, "op_types": ["MaxPool2d"]}, "no such module|quantises the wei"),
        (QAT_Quantizer, {**WEIGHT, "op_names": ["bn1"]}, "default|quantises the weights"),
    ],
)
def test_a_config_that_cannot_be_meant(kind, rule, says):
    model = make_toy(ConvNet)
    before = copy.deepcopy(model)
    with pytest.raises(ConfigError, match=says):
        kind(model, [rule])
    assert repr(model) == repr(before)


def test_arguments_that_cannot_be_meant():
    model = make_toy(ConvNet)
    with pytest.raises(ConfigError, match="must be an optimizer of torch"):
        QAT_Quantizer(model, [WEIGHT], 0.01)
    with pytest.raises(OptionError, match="'quant_bits'. It is a key of config_list"):
        QAT_Quantizer(model, [WEIGHT], quant_bits=8)
    quantizer = NaiveQuantizer(model, [WEIGHT])
    with pytest.raises(ConfigError, match="wrapped by a quantizer already"):
        NaiveQuantizer(model, [WEIGHT])
    with pytest.raises(PruneError, match="Nothing is quantised yet: call compress"):
        quantizer.export_model("model.pth")
    quantizer.compress()
    with pytest.raises(ConfigError, match="input_shape is None"):
        quantizer.export_model("model.pth", onnx_path="model.onnx")
    with pytest.raises(ConfigError, match="are indices"):
        QAT_Quantizer(nn.Sequential(nn.Embedding(4, 4), nn.Linear(4, 4)), [INPUT])
    broken = make_toy(ConvNet)
    broken.conv1.weight.data[0] = float("nan")
    with pytest.raises(ConfigError, match="not finite"):
        NaiveQuantizer(broken, [WEIGHT])
