"""The result that the quick-start tutorial prints."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from prune_core import Compressed
from prune_core.errors import MaskError, PruneWarning, SpeedupError
from prune_core.masking import PrunerModuleWrapper
from prune_core.speedup import ModelSpeedup, shrink


class TorchModel(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 5)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(16 * 4 * 4, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, 10)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = torch.flatten(x, 1)
        x = F.relu(self.fc1(x))
        return F.log_softmax(self.fc3(F.relu(self.fc2(x))), dim=1)


def l1_masks(model, names, sparsity=0.5):
    masks = {}
    for name in names:
        weight = model.get_submodule(name).weight.detach()
        norms = weight.abs().flatten(1).sum(1)
        keep = torch.ones(len(norms))
        keep[norms.argsort()[: int(len(norms) * sparsity)]] = 0
        shape = (-1, *[1] * (weight.ndim - 1))
        masks[name] = {"weight": keep.view(shape).expand_as(weight).clone(), "bias": keep}
    return masks


@pytest.fixture
def model():
    torch.manual_seed(0)
    return TorchModel()


LAYERS = ["conv1", "conv2", "fc1", "fc2"]
INPUT = torch.rand(3, 1, 28, 28)


def test_the_tutorial_prints_what_it_printed(model):
    returned = ModelSpeedup(model, INPUT, l1_masks(model, LAYERS)).speedup_model()
    assert returned is model
    assert repr(model).splitlines()[1:-1] == [
        "  (conv1): Conv2d(1, 3, kernel_size=(5, 5), stride=(1, 1))",
        "  (conv2): Conv2d(3, 8, kernel_size=(5, 5), stride=(1, 1))",
        "  (fc1): Linear(in_features=128, out_features=60, bias=True)",
        "  (fc2): Linear(in_features=60, out_features=42, bias=True)",
        "  (fc3): Linear(in_features=42, out_features=10, bias=True)",
    ]


def test_it_computes_what_the_masked_model_computes_for_any_batch(model):
    masks = l1_masks(model, LAYERS)
    masked = TorchModel()
    masked.load_state_dict(model.state_dict())
    with torch.no_grad():
        for name, tensors in masks.items():
            for tensor, mask in tensors.items():
                getattr(masked.get_submodule(name), tensor).mul_(mask)
    report = shrink(model, INPUT, masks)
    other = torch.rand(5, 1, 28, 28)
    torch.testing.assert_close(model(other), masked(other))
    assert report.comparison.ok
    assert report.masks == {}
    assert report.parameters[1] == sum(p.numel() for p in model.parameters())
    assert "conv2.weight  16×6×5×5 → 8×3×5×5" in report.table()
    assert '"removed": 113' in report.to_json()


def test_tensors_keep_their_identity_and_their_modes(model):
    model.train()
    model.fc2.eval()
    model.fc1.weight.requires_grad_(False)
    before = list(model.parameters())
    model(INPUT).sum().backward()
    shrink(model, INPUT, l1_masks(model, LAYERS))
    assert all(old is new for old, new in zip(before, model.parameters(), strict=True))
    assert not model.fc1.weight.requires_grad
    assert model.training
    assert not model.fc2.training
    assert model.conv2.weight.grad.shape == (8, 3, 5, 5)
    model(INPUT).sum().backward()


def test_what_cannot_go_keeps_its_mask(model):
    scattered = (torch.rand(84, 120) > 0.5).float()
    masks = {**l1_masks(model, ["fc1"]), "fc2": {"weight": scattered}}
    keep = masks["fc1"]["bias"].bool()
    report = shrink(model, INPUT, masks)
    assert report.masks.keys() == {"fc2"}
    assert torch.equal(report.masks["fc2"]["weight"], scattered.bool()[:, keep])
    assert (model.fc2.weight[~report.masks["fc2"]["weight"]] == 0).all()


def test_masks_that_keep_everything_change_nothing(model):
    masks = {"conv1": {"weight": torch.ones(6, 1, 5, 5)}}
    with pytest.warns(PruneWarning, match="Nothing was removed: the masks keep everything"):
        report = shrink(model, INPUT, masks)
    assert report.changes == []
    assert report.removed == 0


def test_removing_everything_leaves_one(model):
    masks = {"fc1": {"weight": torch.zeros(120, 256), "bias": torch.zeros(120)}}
    shrink(model, INPUT, masks)
    assert model.fc1.out_features == 1


def test_without_masks_the_zeros_of_the_model_count(model):
    with torch.no_grad():
        model.fc1.weight[:20] = 0
        model.fc1.bias[:20] = 0
    shrink(model, INPUT)
    assert model.fc1.out_features == 100
    assert model.fc2.in_features == 100


def test_a_producer_is_ignored_by_zero_consumers(model):
    with torch.no_grad():
        model.fc2.weight[:, :30] = 0
    shrink(model, INPUT)
    assert model.fc1.out_features == 90


def test_a_failed_proof_leaves_the_model_untouched(model):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    tensors = list(model.parameters())
    with pytest.raises(SpeedupError, match="differs from the masked one"):
        shrink(model, INPUT, l1_masks(model, LAYERS), tolerance=-1.0)
    assert repr(model) == repr(TorchModel())
    assert all(a is b for a, b in zip(tensors, model.parameters(), strict=True))
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_a_constant_that_is_not_zero_is_not_taken_away(model):
    """A masked weight leaves its bias behind, and the bias is used: the channel stays."""
    masks = l1_masks(model, ["conv1"])
    del masks["conv1"]["bias"]
    with pytest.warns(PruneWarning, match="3 of 3 masked channels stay in the model"):
        report = shrink(model, INPUT, masks, constants="keep")
    assert report.changes == []
    assert [(each.channels, each.modules) for each in report.kept] == [(3, ("conv1",))]
    assert report.masks["conv1"].keys() == {"weight"}


def test_a_wrapped_model_is_refused(model):
    model.fc1 = PrunerModuleWrapper(model.fc1, "fc1", {})
    with pytest.raises(SpeedupError, match="unwrap"):
        shrink(model, INPUT)


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        ({"conv": {"weight": torch.ones(1)}}, "conv1"),
        ({"fc3": {"bias": torch.ones(3)}}, "shape"),
        ({"fc3": {"bias": torch.full((10,), 0.5)}}, "0 and 1"),
        ({"fc3": {"bias": None}}, "of type NoneType; it must be a tensor"),
        ({"fc3.bias": torch.ones(10)}, "by module and by tensor"),
        ([torch.ones(10)], "masks is of type list"),
    ],
)
def test_masks_that_do_not_fit_are_refused(model, masks, message):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(MaskError, match=message):
        shrink(model, INPUT, masks)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])


@pytest.mark.parametrize(
    ("unit", "message"),
    [
        (3, "units has 3; it must be made of units"),
        ("fc1.weight", "as prune_core.units"),
        ({"fc1.weight": {0: (500,)}}, "index 500 is to go. Were the units found on another model"),
    ],
)
def test_units_that_are_none_of_the_model_are_refused(model, unit, message):
    with pytest.raises(SpeedupError, match=message):
        shrink(model, INPUT, units=[unit])


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        (lambda masks: (INPUT, masks), {}),
        (lambda masks: (INPUT, masks, torch.device("cpu")), {}),
        (lambda masks: (INPUT, masks, None, 0, 8), {}),
        (lambda masks: (), {"dummy_input": INPUT, "map_location": "cpu", "confidence": 32}),
        (lambda masks: (INPUT,), {"batch_dim": 0, "batch_size": 4}),
    ],
)
@pytest.mark.parametrize("file", [False, True])
def test_calls_of_older_releases(model, args, kwargs, file, tmp_path):
    masks = l1_masks(model, LAYERS)
    if file:
        torch.save(masks, tmp_path / "masks.pth")
        masks = str(tmp_path / "masks.pth")
    given = args(masks)
    if len(given) < 2:
        kwargs = {**kwargs, "masks_file": masks}
    speedup = ModelSpeedup(model, *given, **kwargs)
    assert speedup.speedup_model() is model
    assert model.conv1.out_channels == 3


def test_replacers_of_older_releases_are_told_of_resizers(model):
    with pytest.warns(PruneWarning, match="customized_replacers=.*prune_register_resizers"):
        ModelSpeedup(model, INPUT, l1_masks(model, LAYERS), customized_replacers=[object()])


@pytest.mark.parametrize("small", [shrink, lambda *given: ModelSpeedup(*given).speedup_model()])
def test_what_compress_returns_is_taken_for_the_model(model, small):
    pair = Compressed(model, l1_masks(model, LAYERS))
    small(pair, INPUT, pair[1])
    assert model.conv1.out_channels == 3
    assert pair(INPUT).shape == (3, 10)
