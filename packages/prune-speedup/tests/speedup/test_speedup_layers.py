"""A report says what became of each layer, and how far its clock can be believed."""

import json
import sys

import torch
from torch import nn

import prune_core
from prune_speedup.torch.measure import Running


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.depthwise = nn.Conv2d(8, 8, 3, groups=8, bias=False)
        self.up = nn.ConvTranspose2d(8, 6, 2, bias=False)
        self.head = nn.Linear(6, 5)

    def forward(self, x):
        x = self.depthwise(self.norm(self.stem(x)).relu()).relu()
        return self.head(self.up(x).mean((2, 3)))


def shrunk():
    torch.manual_seed(0)
    model, gone = Net().eval(), [1, 2, 5]
    masks = {
        name: {key: torch.ones_like(tensor) for key, tensor in layer.named_parameters()}
        for name, layer in model.named_children()
        if name in ("stem", "norm", "depthwise")
    }
    for tensors in masks.values():
        for mask in tensors.values():
            mask[gone] = 0
    return prune_core.shrink(model, torch.randn(2, 3, 8, 8), masks)


def test_channels_before_and_after():
    layers = {each.name: each for each in shrunk().layers}
    assert [*layers] == ["stem", "norm", "depthwise", "up", "head"]
    assert (layers["stem"].inputs, layers["stem"].outputs) == ((3, 3), (8, 5))
    assert layers["stem"].removed == layers["depthwise"].removed == (1, 2, 5)
    assert (layers["norm"].inputs, layers["norm"].outputs) == (None, (8, 5))
    # Each group has one input, and there are fewer groups now.
    assert layers["depthwise"].inputs == (8, 5)
    assert (layers["up"].inputs, layers["up"].outputs) == ((8, 5), (6, 6))
    assert layers["up"].removed == ()
    assert layers["head"].type == "Linear"


def test_layers_add_up():
    report = shrunk()
    for name in ("parameters", "flops"):
        pairs = [getattr(each, name) for each in report.layers]
        assert tuple(map(sum, zip(*pairs, strict=True))) == getattr(report, name)
    assert json.loads(report.to_json())["layers"][0]["removed"] == [1, 2, 5]


def test_shared_parameters_count_once():
    model = nn.Sequential(nn.Embedding(7, 4), nn.Linear(4, 7, bias=False))
    model[1].weight = model[0].weight
    report = prune_core.shrink(model, torch.tensor([[1, 2]]), units=[])
    assert [each.parameters for each in report.layers] == [(28, 28), (0, 0)]
    assert report.layers[0].outputs == (4, 4)
    assert report.layers[1].outputs == (7, 7)


def test_a_clock_that_cannot_tell_says_so():
    sure = Running((0.010, 0.005), (1, 1), (0.001, 0.001), 9)
    assert not sure.noisy
    assert Running((0.010, 0.0095), (1, 1), (0.001, 0.001), 9).noisy
    report = shrunk()
    report.running = Running((0.010, 0.0095), (1, 1), (0.001, 0.0019), 9)
    said = " ".join(str(report).split())
    assert "medians of 9 runs that spread by 10% and 20%: too noisy to tell them apart" in said
    report.running = sure
    assert "too noisy" not in str(report)
    assert "slower" not in str(report)
    report.running = Running((0.010, 0.012), (1, 1), (0.001, 0.001), 9)
    assert "the small model is slower here" in str(report)
    assert "round_to=8" in str(report)
    assert not Running((0.010, 0.0105), (1, 1), (0.001, 0.001), 9).slower


def test_a_notebook_shows_a_table_without_prune_report(monkeypatch):
    monkeypatch.setitem(sys.modules, "prune_report", None)
    html = shrunk()._repr_html_()
    assert "<td>parameters</td>" in html
    assert "pip install prune-report" in html
