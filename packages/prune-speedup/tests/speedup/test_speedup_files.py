"""A small model, saved and loaded into a freshly built dense one."""

import importlib
import json
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from prune_core import (
    SpeedupError,
    load_pruned,
    prune,
    save_masks,
    save_pruned,
    shrink,
    units,
    unwrap,
)

NET = """
import torch
from torch import nn

class Net(nn.Module):
    '''Sizes everywhere: in attributes, in the source, in a tie.'''

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(11, 16)
        self.heads = 4
        self.qkv = nn.Linear(16, 48)
        self.out = nn.Linear(16, 16)
        self.norm = nn.LayerNorm(16)
        self.mlp = nn.Sequential(nn.Linear(16, 24), nn.GELU(), nn.Linear(24, 16))
        self.head = nn.Linear(16, 11, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens):
        x = self.embed(tokens)
        b, n, _ = x.shape
        q, k, v = self.qkv(self.norm(x)).reshape(b, n, 3, self.heads, 4).permute(2, 0, 3, 1, 4)
        mixed = (q @ k.transpose(-1, -2)).softmax(-1) @ v
        x = x + self.out(mixed.transpose(1, 2).reshape(b, n, 16))
        return self.head(x + self.mlp(x))
"""
_FOLDER = tempfile.TemporaryDirectory()
(Path(_FOLDER.name) / "net_of_the_files.py").write_text(NET)
sys.path.insert(0, _FOLDER.name)
Net = importlib.import_module("net_of_the_files").Net


def tokens():
    return torch.arange(10).reshape(2, 5)


def small():
    """Return a net without two heads and half of its hidden units, and the report."""
    torch.manual_seed(0)
    model = Net().eval()
    found = units(model, tokens())
    groups = {group.name: group for group in found.groups}
    chosen = [found.unit(label) for label in groups["mlp.0.weight[0]"].labels[::2]]
    chosen += [found.unit(label) for label in groups["qkv.weight[0]"].labels[:2]]
    return model, shrink(model, tokens(), units=chosen)


def test_round_trip_in_this_process(tmp_path):
    model, report = small()
    assert model.qkv.out_features == 24
    report.save(tmp_path / "small.safetensors")
    fresh = Net().eval()
    first = fresh.embed.weight
    assert load_pruned(fresh, tmp_path / "small.safetensors") is fresh
    assert torch.equal(fresh(tokens()), model(tokens()))
    assert torch.equal(fresh(tokens()[:1, :3]), model(tokens()[:1, :3])), "any other size"
    assert fresh.head.weight is fresh.embed.weight is first, "ties and identity stay"
    assert fresh.mlp[0].out_features == 12
    fresh(tokens()).sum().backward()
    assert fresh.qkv.weight.grad.shape == (24, 16)


def test_round_trip_in_a_fresh_process(tmp_path):
    model, report = small()
    report.save(tmp_path / "small.safetensors")
    torch.save(model(tokens()), tmp_path / "expected.pt")
    (tmp_path / "net_of_another_process.py").write_text(NET)
    script = textwrap.dedent("""
        import prune_core, torch
        from net_of_another_process import Net
        model = prune_core.load_pruned(Net().eval(), "small.safetensors")
        expected = torch.load("expected.pt", weights_only=True)
        assert torch.equal(model(torch.arange(10).reshape(2, 5)), expected)
    """)
    done = subprocess.run(
        (sys.executable, "-c", script), cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


class OwnNorm(nn.LayerNorm):
    """A norm of a library: torch's, by another module's name."""


class Chunks(nn.Module):
    """Keeps the sizes of its pieces in a list."""

    def __init__(self):
        super().__init__()
        self.widths = [8, 8]
        self.grow, self.norm, self.down = nn.Linear(4, 16), OwnNorm(16), nn.Linear(8, 2)

    def forward(self, x):
        left, right = torch.split(self.norm(self.grow(x)), self.widths, -1)
        return self.down(left * right)


def test_sizes_in_lists_of_other_peoples_layers(tmp_path):
    torch.manual_seed(0)
    model, x = Chunks().eval(), torch.rand(3, 4)
    found = units(model, x)
    report = shrink(model, x, units=[found.unit(label) for label in found.groups[0].labels[:4]])
    assert (model.widths, model.norm.normalized_shape) == ([4, 4], (8,))
    report.save(tmp_path / "small.safetensors")
    loaded = load_pruned(Chunks().eval(), tmp_path / "small.safetensors")
    assert (loaded.widths, loaded.norm.normalized_shape) == ([4, 4], (8,))
    assert torch.equal(loaded(x), model(x))


def test_what_was_trained_since_is_saved_and_small_models_become_smaller(tmp_path):
    model, _ = small()
    with torch.no_grad():
        model.out.bias.fill_(3.0)
    found = units(model, tokens())
    group = next(group for group in found.groups if group.name == "mlp.0.weight[0]")
    shrink(model, tokens(), units=[found.unit(label) for label in group.labels[:6]])
    save_pruned(model, tmp_path / "smaller.safetensors")
    fresh = load_pruned(Net().eval(), tmp_path / "smaller.safetensors")
    assert fresh.mlp[0].out_features == 6
    assert torch.equal(fresh(tokens()), model(tokens()))


def test_a_file_that_does_not_fit_leaves_the_model_alone(tmp_path):
    _, report = small()
    path = tmp_path / "small.safetensors"
    report.save(path)
    whole = path.read_bytes()

    def refused(says, model=None):
        model = Net() if model is None else model
        before = {name: value.clone() for name, value in model.state_dict().items()}
        with pytest.raises(SpeedupError, match=says):
            load_pruned(model, path)
        assert all(torch.equal(before[n], v) for n, v in model.state_dict().items())

    refused("has 'embed.weight', and the model has no such tensor", nn.Linear(2, 2))
    larger = Net()
    larger.extra = nn.Linear(2, 2)
    refused("lacks 'extra.weight'", larger)
    narrow = Net()
    narrow.mlp = nn.Sequential(nn.Linear(16, 8), nn.GELU(), nn.Linear(8, 16))
    refused("never makes a tensor larger", narrow)
    for end in (0, 10, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:end])
        refused("damaged|No such|Error|error")
    save_file({"w": torch.ones(1)}, path)
    refused("not one that save_pruned wrote")
    save_masks(path, {"qkv": {"weight": torch.ones(48, 16)}})
    refused("not one that save_pruned wrote")
    save_file({"w": torch.ones(1)}, path, {"format": "prune-model", "format_version": "9"})
    refused("Upgrade prune-speedup")
    path.unlink()
    refused("No such file")


def test_the_report_as_json():
    _, report = small()
    content = json.loads(report.to_json())
    assert content["removed"] == 14
    assert content["parameters"][1] < content["parameters"][0]


@pytest.mark.usefixtures("toys")
def test_what_was_loaded_keeps_its_notes_through_a_rehearsal(tmp_path):
    def build():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 12), nn.ReLU(), nn.Linear(12, 3)).eval()

    x = torch.ones(2, 4)
    save_pruned(build(), tmp_path / "dense.safetensors")
    model = load_pruned(build(), tmp_path / "dense.safetensors")
    _, masks = prune(model, "toy_l1", target={"flops": 0.6}, example_inputs=x)
    save_pruned(unwrap(model), tmp_path / "masked.safetensors")
    again = load_pruned(build(), tmp_path / "masked.safetensors")
    shrink(again, x, masks)
    assert again[0].out_features < 12
    assert again[2].out_features == 3
