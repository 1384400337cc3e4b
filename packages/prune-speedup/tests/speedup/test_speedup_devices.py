"""Types of numbers, and devices: the proof can fail in each, and nothing assumes the processor."""

import pytest
import torch
from torch import nn

import prune_core
from prune_core import PruneWarning, SpeedupError, shrink, units
from prune_speedup.torch import apply_plan as run


class Block(nn.Module):
    """Convolutions under norms, then attention, over one width that is added to."""

    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16)
        self.layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
        self.head = nn.Linear(16, 5)

    def forward(self, x):
        x = self.norm(self.stem(x)).relu()
        return self.head(self.layer(x.flatten(2).transpose(1, 2)).mean(1))


def built(dtype=torch.float32, device="cpu"):
    torch.manual_seed(0)
    model = Block()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, 0, parameter.shape[1:].numel() ** -0.5)
    nn.init.normal_(model.norm.bias, 0, 0.5)
    nn.init.normal_(model.norm.running_mean, 0, 0.5)
    return model.eval().to(device, dtype), torch.randn(2, 3, 6, 6).to(device, dtype)


def some(found):
    return [
        found.unit(label) for group in found.groups for label in group.labels[1 : len(group) : 2]
    ]


DTYPES = {
    torch.float64: 1e-9,
    torch.float32: 1e-4,
    torch.bfloat16: 1e-4,  # compared in single precision
    torch.float16: 1e-4,
}


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_type_of_number_has_its_tolerance(dtype):
    model, x = built(dtype)
    report = shrink(model, x, units=some(units(model, x)))
    assert report.comparison.tolerance == DTYPES[dtype]
    assert {tensor.dtype for tensor in model.parameters()} == {dtype}
    assert report.parameters[1] < 0.4 * report.parameters[0]
    assert model(x).dtype == dtype


FAULTS = {
    "channels in another order": lambda model: model.head.weight.data.copy_(
        model.head.weight.data.roll(1, 1)
    ),
    "heads in another order": lambda model: model.layer.self_attn.out_proj.weight.data.copy_(
        model.layer.self_attn.out_proj.weight.data.roll(4, 1)
    ),
    "a bias that is lost": lambda model: model.layer.linear1.bias.data.zero_(),
    "statistics of other channels": lambda model: model.norm.running_mean.copy_(
        model.norm.running_mean.roll(1)
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_cut_that_is_wrong_is_found_in_every_type(dtype, fault, monkeypatch):
    model, x = built(dtype)
    before = {name: value.clone() for name, value in model.state_dict().items()}

    def wrong(model, plan):
        update_sizes(model, plan)
        FAULTS[fault](model)

    update_sizes = run.update_sizes
    monkeypatch.setattr(run, "update_sizes", wrong)
    with pytest.raises(SpeedupError, match="differs from the masked one"):
        shrink(model, x, units=some(units(model, x)))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_a_model_without_numbers_has_units_and_cannot_be_shrunk():
    model, x = built()
    expected = [(group.name, len(group)) for group in units(model, x).groups]
    empty = model.to("meta")
    assert [(g.name, len(g)) for g in units(empty, x.to("meta")).groups] == expected
    with pytest.raises(SpeedupError, match=r"'stem.weight' is on the meta device.*real device"):
        shrink(empty, x.to("meta"))


def test_a_layer_that_has_never_run_is_named():
    model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))
    model[0].unused = nn.LazyLinear(4)
    with pytest.raises(
        SpeedupError, match=r"'0.unused.weight' has no size yet; run the model once"
    ):
        shrink(model, torch.rand(2, 3))
    assert model[0].out_features == 8


@pytest.mark.parametrize("constants", ["exact", "keep", "zero", "fold", "remove"])
def test_no_tensor_is_made_on_the_default_device(constants):
    """A default device without numbers would show every tensor that is made there."""
    model, x = built()
    keep = torch.arange(16) >= 8
    masks = {"stem": {"weight": keep.view(16, 1, 1, 1).expand(16, 3, 3, 3), "bias": keep}}
    masks |= {"layer.linear1": {"weight": torch.ones(32, 16), "bias": torch.ones(32)}}
    masks["layer.linear1"]["weight"][:8] = masks["layer.linear1"]["bias"][:8] = 0
    says = "8 of 16 masked channels stay in the model, those of 'stem'"
    with torch.device("meta"):
        found = units(model, x)
        with pytest.warns(PruneWarning, match=says):
            report = shrink(model, x, masks, constants=constants, measure=True)
    assert len(found) == 16 + 4 + 32
    assert model.layer.linear1.out_features == 24
    assert report.removed >= 8


cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@cuda
@pytest.mark.parametrize("dtype", DTYPES)
def test_on_a_gpu(dtype):
    model, x = built(dtype, "cuda")
    report = shrink(model, x, units=some(units(model, x)), measure=True)
    assert {tensor.device.type for tensor in model.state_dict().values()} == {"cuda"}
    assert report.running.seconds[1] > 0
    model(torch.cat([x, x])).sum().backward()
    assert model.stem.weight.grad.shape == model.stem.weight.shape


@cuda
@pytest.mark.parametrize("constants", ["exact", "keep", "zero", "fold", "remove"])
def test_masks_of_either_device_on_a_gpu(constants, tmp_path):
    model, x = built(device="cuda")
    weight, bias = torch.ones(32, 16), torch.ones(32, device="cuda")
    weight[:8] = bias[:8] = 0
    report = shrink(
        model, x, {"layer.linear1": {"weight": weight, "bias": bias}}, constants=constants
    )
    assert model.layer.linear1.out_features == 24
    report.save(tmp_path / "small.safetensors")
    again = prune_core.load_pruned(built(device="cuda")[0], tmp_path / "small.safetensors")
    assert torch.equal(again(x), model(x))
