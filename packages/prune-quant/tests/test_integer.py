"""The model of integers against the one that rounds, in torch and in ONNX Runtime."""

import copy
import pickle

import pytest
import torch
from torch import nn

from prune_core import ConfigError, PruneError
from prune_core.masking import PrunerModuleWrapper, replace_modules
from prune_core.testing import MLP, ConvNet, ResidualNet, make_batch, make_toy
from prune_quant import (
    BNNQuantizer,
    DoReFaQuantizer,
    LsqQuantizer,
    NaiveQuantizer,
    ObserverQuantizer,
    QAT_Quantizer,
    distance,
)
from prune_quant.rounding.grid import integers

ALL = [{"quant_types": ["weight", "input", "output"], "quant_bits": 8, "op_types": ["default"]}]
TOLERANCE = 1e-6  # torch rounds by the same arithmetic in both
# Another runtime sums in another order: a value that lies between two steps may go to either.
RUNTIME_TOLERANCE = 0.01


def trained(quantizer_class, toy, rules=ALL):
    model = make_toy(toy)
    images, labels = make_batch(toy, 16)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    quantizer = quantizer_class(model, rules, optimizer)
    if quantizer_class is ObserverQuantizer:
        model.eval()(images)
    quantizer.compress()
    for _ in range(3):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model.train()(images), labels).backward()
        optimizer.step()
    model.eval()
    return quantizer, images


@pytest.mark.parametrize("toy", [MLP, ConvNet, ResidualNet])
@pytest.mark.parametrize("quantizer_class", [ObserverQuantizer, QAT_Quantizer, LsqQuantizer])
def test_integers_compute_what_the_rounding_model_does(quantizer_class, toy):
    quantizer, images = trained(quantizer_class, toy)
    made = quantizer.convert(images, tolerance=TOLERANCE)
    weights = [b for n, b in made.named_buffers() if n.endswith("weight_integers")]
    assert len(weights) == len(quantizer.get_modules_wrapper())
    assert {w.dtype for w in weights} == {torch.int8}
    assert distance(made, copy.deepcopy(made), images) == 0
    assert distance(made, pickle.loads(pickle.dumps(made)), images) == 0


def test_a_layer_by_whole_numbers_alone():
    """The first layer, computed with int64 and nothing else, is what the model computes."""
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10)).eval()
    x = torch.randn(8, 64)
    rules = [{"quant_types": ["weight", "input"], "op_names": ["0"]}]
    quantizer = ObserverQuantizer(model, rules, calibrate=lambda net: net(x))
    quantizer.compress()
    layer, rounds = quantizer.convert(x)[0], model[0].input_quantizer
    whole = integers(x, rounds.scale, rounds.zero_point, 0, 255).long() - int(rounds.zero_point)
    summed = whole @ layer.weight_integers.long().T
    expected = summed * (rounds.scale * layer.weight_scale) + model[0].bias
    torch.testing.assert_close(layer(x), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("toy", [ConvNet, ResidualNet])
def test_onnx_runtime_computes_the_same_with_integers(toy, tmp_path):
    pytest.importorskip("onnxscript", reason="writes ONNX")
    runtime = pytest.importorskip("onnxruntime", reason="runs it")
    quantizer, images = trained(QAT_Quantizer, toy)
    path = tmp_path / "model.onnx"
    quantizer.export_model(
        tmp_path / "model.pth", onnx_path=path, input_shape=[2, *toy.input_shape]
    )
    import onnx

    kinds = [node.op_type for node in onnx.load(path).graph.node]
    assert "QuantizeLinear" in kinds
    assert "DequantizeLinear" in kinds
    session = runtime.InferenceSession(path)
    [name] = [each.name for each in session.get_inputs()]
    found = torch.from_numpy(session.run(None, {name: images.numpy()})[0])
    with torch.no_grad():
        expected = quantizer.bound_model(images)
    assert (found - expected).norm() / expected.norm() < RUNTIME_TOLERANCE
    # No output is further away than one step of the last layer.
    *_, last = quantizer.get_modules_wrapper().values()
    step = float(last.output_quantizer.scale.detach())
    assert (found - expected).abs().max() <= 1.01 * step


def test_after_training_the_newest_weights_are_converted():
    quantizer, images = trained(QAT_Quantizer, MLP)  # the last step has changed them
    scales = {name: c["weight_scale"] for name, c in quantizer.calibration_config.items()}
    quantizer.bound_model(images)
    for name, wrapper in quantizer.get_modules_wrapper().items():
        assert torch.equal(scales[name], wrapper.weight_quantizer.scale)


def test_a_masked_model_becomes_one_of_integers_with_zeros():
    model = make_toy(MLP)
    wrapper = PrunerModuleWrapper(model.fc1, "fc1", {})
    mask = torch.rand(model.fc1.weight.shape) < 0.5
    wrapper.set_masks({"weight": mask})
    replace_modules(model, {model.fc1: wrapper})
    quantizer = NaiveQuantizer(model, [{"quant_types": ["weight"], "op_types": ["default"]}])
    quantizer.compress()
    made = quantizer.convert(make_batch(MLP)[0])
    assert not made.fc1.weight_integers[~mask].any()
    assert not any(isinstance(m, PrunerModuleWrapper) for m in made.modules())
    assert model.fc1.module is wrapper


def test_attention_reads_the_weight_of_its_last_layer():
    torch.manual_seed(0)
    model = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, dropout=0.0)
    x = torch.randn(2, 5, 16)
    quantizer = NaiveQuantizer(model, [{"quant_types": ["weight"], "op_types": ["default"]}])
    before = model.train()(x).detach()
    assert "self_attn.out_proj" in quantizer.get_modules_wrapper()
    quantizer.compress()
    after = model(x).detach()
    assert 0 < (after - before).norm() / before.norm() < 0.05
    dense = quantizer.unwrap()
    torch.testing.assert_close(dense(x).detach(), before)


def test_what_integers_cannot_stand_for_is_refused():
    rules = [{"quant_types": ["weight"], "quant_bits": 12, "op_types": ["default"]}]
    quantizer = NaiveQuantizer(make_toy(MLP), rules)
    with pytest.raises(PruneError, match="call compress"):
        quantizer.convert()
    quantizer.compress()
    with pytest.raises(PruneError, match="12 bits"):
        quantizer.convert()
    for kind, bits in ((DoReFaQuantizer, 4), (BNNQuantizer, 1)):
        few = kind(make_toy(MLP), [{**rules[0], "quant_bits": bits}])
        few.compress()
        with pytest.raises(PruneError, match="no zero"):
            few.convert()


def test_a_copy_that_computes_something_else_is_refused():
    quantizer, images = trained(QAT_Quantizer, MLP)
    with pytest.raises(PruneError, match="more than tolerance"):
        quantizer.convert(images, tolerance=-1)
    with pytest.raises(ConfigError, match="does not run on the inputs"):
        quantizer.convert(images[:, :1])
