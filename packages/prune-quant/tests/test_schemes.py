"""`quantize(model, scheme)`: what torchao makes of a model, and what is refused."""

import copy
import re

import pytest
import torch
from torch import nn

import prune_core
from prune_core import ConfigError, PruneError, PruneWarning
from prune_core.masking import PrunerModuleWrapper, replace_modules
from prune_core.testing import ConvNet, make_batch, make_toy
from prune_quant import distance, finish_qat, prepare_qat, quantize, round_to

# How far torchao's schemes are from floating point on this small network, and a margin.
TOLERANCE = {"int8": 0.01, "int8_dynamic": 0.02, "float8": 0.06, "int4": 0.2}


def mlp(width=64, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10)).eval()


def pruned_mlp():
    model = mlp()
    with torch.no_grad():
        for layer in (model[0], model[2]):
            layer.weight[layer.weight.abs() < 0.06] = 0
    return model


def quietly(model, scheme, **options):
    if scheme == "int4":
        with pytest.warns(PruneWarning, match="in a byte"):
            return quantize(model, scheme, **options)
    return quantize(model, scheme, **options)


inputs = torch.randn(16, 64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("scheme", TOLERANCE)
def test_a_scheme_is_near_floating_point_and_zeros_stay(scheme):
    model = pruned_mlp()
    before = copy.deepcopy(model)
    made = quietly(model, scheme)
    assert 0 < distance(model, made, inputs) < TOLERANCE[scheme]
    for at in (0, 2):
        assert torch.equal(model[at].weight, before[at].weight)  # the model itself is as it was
        zero = model[at].weight == 0
        assert zero.any()
        assert not made[at].weight.dequantize()[zero].any()


@pytest.mark.parametrize("scheme", TOLERANCE)
def test_saved_loaded_copied_and_exported(scheme, tmp_path):
    made = quietly(mlp(), scheme)
    assert distance(made, copy.deepcopy(made), inputs) == 0
    torch.save(made, tmp_path / "whole.pth")
    assert distance(made, torch.load(tmp_path / "whole.pth", weights_only=False), inputs) == 0
    torch.save(made.state_dict(), tmp_path / "state.pth")
    other = mlp(seed=1)
    # Early releases of Python 3.11 pickle a member of an enum by getattr, which torch refuses.
    refused = re.RegexFlag.A.__reduce_ex__(2)[0] is getattr
    state = torch.load(tmp_path / "state.pth", weights_only=not refused)
    other.load_state_dict(state, assign=True)
    assert distance(made, other, inputs) == 0
    prune_core.export(made, tmp_path / "model.pt2", inputs)
    assert distance(made, torch.export.load(tmp_path / "model.pt2").module(), inputs) == 0


def test_settings_of_torch_stay_as_they_are():
    """torchao would set the precision of all products in float32, for the whole process."""
    before = torch.get_float32_matmul_precision()
    for scheme in TOLERANCE:
        quietly(mlp(), scheme)
    assert torch.get_float32_matmul_precision() == before == "highest"


def test_pairs_with_labels_are_told():
    pairs = [(inputs, torch.zeros(16))]
    with pytest.raises(ConfigError, match="does not run on .*Give inputs without labels"):
        quantize(mlp(), "int8_static", data=pairs)


def test_int8_files_are_a_quarter(tmp_path):
    sizes = []
    model = mlp(1024)
    for each in (model, quantize(model, "int8")):
        torch.save(each.state_dict(), tmp_path / "model.pth")
        sizes.append((tmp_path / "model.pth").stat().st_size)
    assert sizes[1] < 0.3 * sizes[0]


def test_masks_are_put_into_the_weights():
    model = mlp()
    wrapper = PrunerModuleWrapper(model[0], "0", {})
    mask = torch.rand(64, 64) < 0.5
    wrapper.set_masks({"weight": mask})
    replace_modules(model, {model[0]: wrapper})
    made = quantize(model, "int8", exclude=["2"])
    assert not made[0].weight.dequantize()[~mask].any()
    assert type(made[2].weight) is nn.Parameter
    assert model[0] is wrapper
    with pytest.raises(ConfigError, match=r"is masked \('0' .*unwrap"):
        quantize(model, "int8", inplace=True)


def test_static_int8_of_a_convolutional_network(tmp_path):
    model = make_toy(ConvNet).eval()
    images, _ = make_batch(ConvNet, 8)
    made = quantize(model, "int8_static", data=[images, images[:3]])
    assert distance(model, made, images) < 0.02
    assert distance(model, made, images[:5]) < 0.02  # any batch size
    assert made.eval() is made
    assert distance(made, copy.deepcopy(made), images) == 0
    # Its weights are kept once, as integers.
    kinds = {t.dtype for n, t in made.state_dict().items() if "frozen" in n}
    assert kinds == {torch.int8}
    assert not any(name.endswith("weight") for name in made.state_dict())
    prune_core.export(made, tmp_path / "model.pt2", images)
    again = torch.export.load(tmp_path / "model.pt2").module()
    assert distance(made, again, images) == 0
    with pytest.raises(PruneError, match="cannot be pickled.*pt2"):
        torch.save(made, tmp_path / "model.pth")


def test_training_ends_in_the_numbers_that_it_has_trained_with():
    model = prepare_qat(mlp(), "int8")
    parameters = {id(p) for p in mlp().parameters()}
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    for _ in range(3):
        optimizer.zero_grad()
        model.train()(inputs).square().mean().backward()
        optimizer.step()
    with pytest.raises(ConfigError, match=r"rounds already.*finish_qat\(model\)"):
        quantize(model, "int8")
    made = finish_qat(model)
    assert distance(model, made, inputs) < 1e-5
    assert type(made[0].weight).__name__ == "Int8Tensor"
    assert {id(p) for p in model.parameters()} != parameters
    with pytest.raises(PruneError, match="was not prepared"):
        finish_qat(mlp())
    with pytest.raises(ConfigError, match="'int8' and 'int4'"):
        prepare_qat(mlp(), "int8_dynamic")


def test_widths_that_do_not_fit_a_group_are_refused_with_a_way_out():
    with pytest.raises(ConfigError, match=r"multiple of 32: '2' has 50. .*round_to=32.*\['2'\]"):
        quantize(mlp(50), "int4")
    assert round_to("int4", group_size=64) == 64
    assert round_to("int8") == 1
    assert round_to("int8_dynamic", device="cuda") == 8


def test_pruned_to_what_round_to_says_it_fits():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 90), nn.ReLU(), nn.Linear(90, 10)).eval()
    weight = model[0].weight
    kept = weight.abs().sum(1).argsort(descending=True)[:64]
    small = mlp(64)
    with torch.no_grad():
        small[0].weight.copy_(weight[kept])
    assert distance(small, quietly(small, "int4"), inputs) < 0.2


@pytest.mark.parametrize(
    ("scheme", "options", "says"),
    [
        ("int-8", {}, "Did you mean 'int8'"),
        ("int8_2to4", {}, "no kernel for int8 weights with 2:4 zeros. Use 'int8_dynamic'"),
        ("float8_dynamic", {}, "the model is on cpu. There, 'int8_dynamic'"),
        ("int4", {"group_size": 0}, "group_size is 0"),
        ("int8", {"data": [inputs]}, "looks at no data"),
        ("int8", {"exclude": ["head"]}, "no module of that name. There are 0, 1, 2"),
        ("int8", {"exclude": "0"}, "must be a list of names"),
        ("int8", {"exclude": ["0", "2"]}, "none that are not excluded"),
        ("int8_static", {}, "give data="),
        ("int8_static", {"data": inputs}, "several batches"),
        ("int8_static", {"data": []}, "data is empty"),
        ("int8_static", {"data": [torch.rand(3)]}, "does not run on the inputs"),
        ("int8_static", {"data": [inputs], "inplace": True}, "makes a new graph"),
    ],
)
def test_what_cannot_be_done_is_refused(scheme, options, says):
    model = mlp()
    before = copy.deepcopy(model)
    with pytest.raises(ConfigError, match=says):
        quantize(model, scheme, **options)
    pairs = zip(model.parameters(), before.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_convolutions_alone_are_told_of_the_scheme_for_them():
    with pytest.raises(ConfigError, match="'int8_static'"):
        quantize(nn.Sequential(nn.Conv2d(3, 3, 3)), "int8")
    with pytest.warns(PruneWarning, match="convolutions hold 1,512 weights"):
        quantize(nn.Sequential(nn.Conv2d(3, 56, 3), nn.Linear(4, 4)), "int8")


def test_a_quantised_model_is_neither_quantised_nor_pruned_again():
    made = quantize(mlp(), "int8")
    with pytest.raises(ConfigError, match="'0' is quantised already"):
        quantize(made, "int8")
    with pytest.raises(ConfigError, match="is quantised .*pruning comes first"):
        prune_core.Pruner(made, [{"sparsity": 0.5, "op_types": ["Linear"]}])


def test_a_layer_that_shares_its_weight_stays():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.body = nn.Embedding(32, 64), nn.Linear(64, 64)
            self.head = nn.Linear(64, 32, bias=False)
            self.head.weight = self.embed.weight

        def forward(self, x):
            return self.head(self.body(self.embed(x)))

    with pytest.warns(PruneWarning, match="'head' shares its weight"):
        made = quantize(Tied(), "int8")
    assert made.head.weight is made.embed.weight
    assert type(made.body.weight).__name__ == "Int8Tensor"


def test_int8_static_takes_an_activation_that_is_called_twice():
    """As in a ResNet's block, which torchao alone refuses."""

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
            self.relu = nn.ReLU(inplace=True)

        def forward(self, x):
            x = self.relu(self.first(x))
            return self.relu(x + self.second(x))

    torch.manual_seed(0)
    model, images = Block().eval(), torch.randn(4, 3, 8, 8)
    made = quantize(model, "int8_static", data=[images])
    with torch.no_grad():
        expected = model(images)
        assert float((made(images) - expected).abs().max() / expected.abs().max()) < 0.05
