"""A small model is used as any other: copied, saved, trained, compiled and exported."""

import copy
import io
import pickle
import shutil

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from prune_core import SpeedupError, shrink, units


class Convolutions(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.depthwise, self.grouped = nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.GroupNorm(4, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        x = self.norm(self.stem(x)).relu()
        return self.head(self.grouped(x + self.depthwise(x)).mean((2, 3)))


class Literals(nn.Module):
    """Sizes in the source: every kind of call that is corrected."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.last = nn.Linear(6, 24), nn.Linear(8, 8), nn.Linear(8, 4)
        self.scale = nn.Parameter(torch.rand(8) + 0.5)

    def forward(self, x):
        q, k, v = self.first(x).split(8, -1)
        x = F.layer_norm(q * k.sigmoid() + v, (8,), self.scale)
        x = self.second(x).view(-1, 8).relu()
        return self.last(x.reshape(x.shape[0], 8))


class Normalised(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(6, 8), nn.Linear(8, 4)
        self.norm, self.root = nn.LayerNorm(8), nn.RMSNorm(8)

    def forward(self, x):
        x = self.first(x)
        return self.last(self.norm(x) + self.root(x))


class Tied(nn.Module):
    """Attention that loses heads and width, under one tensor for both ends."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(20, 16)
        self.layer = nn.TransformerEncoderLayer(16, 4, 32, dropout=0.0, batch_first=True)
        self.head = nn.Linear(16, 20, bias=False)
        self.head.weight = self.table.weight

    def forward(self, tokens):
        return self.head(self.layer(self.table(tokens)))


INPUTS = {
    Convolutions: lambda batch: torch.randn(batch, 3, 8, 8),
    Literals: lambda batch: torch.randn(batch, 6),
    Normalised: lambda batch: torch.randn(batch, 6),
    Tied: lambda batch: torch.randint(0, 20, (batch, 5)),
}


def small(kind):
    """A model without half of the units of each group."""
    return shrunk(kind)[0]


def shrunk(kind):
    """Such a model, and the report."""
    torch.manual_seed(0)
    model = kind().eval()
    found = units(model, INPUTS[kind](2))
    chosen = [
        found.unit(label) for group in found.groups for label in group.labels[: len(group) // 2]
    ]
    before = sum(parameter.numel() for parameter in model.parameters())
    report = shrink(model, INPUTS[kind](2), units=chosen)
    assert report.parameters[1] < 0.6 * before
    return model, report


@pytest.fixture(params=INPUTS, ids=lambda kind: kind.__name__)
def kind(request):
    return request.param


def test_the_literals_are_corrected():
    _, report = shrunk(Literals)
    assert [expression for _, _, expression in report.corrections] == [
        "self.first(x).split(8, -1) in Literals.forward",
        "F.layer_norm(q * k.sigmoid() + v, (8,), self.scale) in Literals.forward",
        "self.second(x).view(-1, 8) in Literals.forward",
        "x.reshape(x.shape[0], 8) in Literals.forward",
    ]


def through_a_file(model):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize(
    "again",
    [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model)), through_a_file],
    ids=["deepcopy", "pickle", "save"],
)
def test_a_copy_is_the_same_and_its_own(kind, again):
    model, x = small(kind), INPUTS[kind](3)
    other = again(model)
    assert torch.equal(other(x), model(x))
    with torch.no_grad():
        next(other.parameters()).mul_(2)
    assert not torch.equal(other(x), model(x))


def test_it_trains(kind):
    model, x = small(kind).train(), INPUTS[kind](4)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        loss = (model(x) - 1).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2
    assert all(p.grad.shape == p.shape for p in model.parameters())


def test_what_is_frozen_stays_frozen_and_every_module_in_its_mode():
    torch.manual_seed(0)
    model = Convolutions().train()
    model.norm.eval()
    model.stem.weight.requires_grad = False
    found = units(model, INPUTS[Convolutions](2))
    modes = {name: module.training for name, module in model.named_modules()}
    shrink(model, INPUTS[Convolutions](2), units=[found.unit(found.groups[0].labels[0])])
    assert {name for name, p in model.named_parameters() if not p.requires_grad} == {"stem.weight"}
    assert {name: module.training for name, module in model.named_modules()} == modes


@pytest.mark.parametrize("dims", [2, 3])
def test_channels_that_are_last_in_memory_stay_last(dims):
    order = torch.channels_last if dims == 2 else torch.channels_last_3d
    conv = nn.Conv2d if dims == 2 else nn.Conv3d
    model = nn.Sequential(conv(3, 8, 3, padding=1), nn.ReLU(), conv(8, 6, 3), nn.Flatten())
    model.to(memory_format=order)
    x = torch.randn(2, 3, *(5,) * dims).to(memory_format=order)
    found = units(model, x)
    shrink(model, x, units=[found.unit(label) for label in found.groups[0].labels[::2]])
    for layer in (model[0], model[2]):
        assert layer.weight.is_contiguous(memory_format=order)
        assert not layer.weight.is_contiguous()
    assert model[2].weight.shape[1] == 4


def test_what_is_tied_stays_tied():
    model = small(Tied)
    assert model.head.weight is model.table.weight
    assert through_a_file(model).head.weight.shape == (20, 8)
    other = copy.deepcopy(model)
    assert other.head.weight is other.table.weight


def test_it_is_compiled_whole_for_any_batch(kind):
    if kind is Tied and not hasattr(torch.nn.functional, "grouped_mm"):
        pytest.skip("older torch does not compile its own encoder layer with fewer heads")
    model = small(kind)
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        for batch in (3, 5):
            x = INPUTS[kind](batch)
            torch.testing.assert_close(compiled(x), model(x))


# torch warns of its own use of torch.jit.
@pytest.mark.filterwarnings("ignore:.*torch.jit")
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_it_is_compiled_to_native_code():
    model, x = small(Literals), INPUTS[Literals](3)
    torch._dynamo.reset()
    with torch.no_grad():
        torch.testing.assert_close(torch.compile(model)(x), model(x))


def test_it_is_exported_for_any_batch(kind):
    model = small(kind)
    batch = torch.export.Dim("batch")
    exported = torch.export.export(model, (INPUTS[kind](3),), dynamic_shapes=({0: batch},))
    x = INPUTS[kind](7)
    torch.testing.assert_close(exported.module()(x), model(x))


class Step(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(8, 12), nn.Linear(12, 8)

    def forward(self, x):
        return x + self.down(torch.relu(self.up(x)))


class PartlyScripted(nn.Module):
    def __init__(self, stays: bool):
        super().__init__()
        self.stem, self.head = nn.Linear(3, 8), nn.Linear(8, 2)
        self.step, self.stays = torch.jit.script(Step()), stays

    def forward(self, x):
        assert self.stem.out_features == 8 or not self.stays, "eight wide"
        return self.head(self.step(self.stem(x)))


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_a_model_with_a_scripted_part():
    model, x = PartlyScripted(stays=False).eval(), torch.rand(2, 3)
    found = units(model, x)
    shrink(model, x, units=[found.unit(label) for g in found.groups for label in g.labels[::2]])
    assert [p.shape[0] for p in model.step.parameters()] == [6, 6, 4, 4]
    model(torch.rand(5, 3)).sum().backward()
    model = PartlyScripted(stays=True).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    wide = [unit for unit in units(model, x) if "stem.weight" in unit.slices]
    with pytest.raises(SpeedupError, match="eight wide"):
        shrink(model, x, units=wide[:1])
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
