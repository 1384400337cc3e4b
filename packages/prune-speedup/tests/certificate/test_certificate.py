"""A small model gets a certificate that the checker accepts, and a wrong one is refused."""

import json
import subprocess
import sys

import pytest
import torch
from mutations import attack
from networks import case
from torch import nn

from prune_core import ModelSpeedup, PruneWarning, shrink, units
from prune_verify import Rejected, check
from prune_verify.tensors import read_tensors

FILES = "original.safetensors", "small.safetensors", "certificate.json"


def files(folder):
    return [folder / name for name in FILES]


@pytest.mark.parametrize("kind", ["convolutions", "attention", "groups"])
def test_three_files_are_written_and_check(kind, tmp_path):
    model, x, masks, _ = case(kind)
    report = shrink(model, x, masks, certificate=tmp_path)
    assert report.removed
    assert report.certificate.path == str(tmp_path / "certificate.json")
    assert check(*files(tmp_path)).steps == report.certificate.steps


@pytest.mark.parametrize("kind", ["convolutions", "attention", "groups"])
def test_mutations_are_refused(kind, tmp_path):
    model, x, masks, producers = case(kind)
    shrink(model, x, masks, certificate=tmp_path)
    original, small = (read_tensors(path) for path in files(tmp_path)[:2])
    told = json.loads((tmp_path / "certificate.json").read_text())
    made, survived = attack(original, small, told, producers, 200)
    assert sum(made.values()) == 200
    assert len(made) >= 13
    assert [name for name, _ in survived] == []


def test_a_constant_that_was_moved_into_a_bias(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3, bias=False))
    mask = torch.ones(6, 4)
    mask[[1, 2]] = 0
    report = shrink(model, torch.randn(2, 4), {"0": {"weight": mask}}, certificate=tmp_path)
    assert report.gained == ["2.bias"]
    assert check(*files(tmp_path)).steps == report.certificate.steps
    told = json.loads((tmp_path / "certificate.json").read_text())
    [step] = [s for s in told["steps"] if s.get("with", {}).get("name") == "2.bias"]
    assert step["with"]["fold"] == "gained"


def test_the_two_step_form_writes_one_too(tmp_path):
    model, x, masks, _ = case("convolutions")
    speedup = ModelSpeedup(model, x, masks, certificate=tmp_path / "net.json")
    speedup.speedup_model()
    assert [path.name for path in tmp_path.iterdir()] == ["net.json"]


class Running(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(4, 6), nn.Linear(6, 2)

    def forward(self, x):
        return self.down(self.up(x).cummax(0)[0])


def test_where_a_rule_is_missing_it_says_which(tmp_path):
    torch.manual_seed(0)
    model = Running()
    masks = {"up": {"weight": torch.ones(6, 4), "bias": torch.ones(6)}}
    masks["up"]["weight"][2], masks["up"]["bias"][2] = 0, 0
    with pytest.warns(PruneWarning, match=r"no rule for aten\.cummax"):
        report = shrink(model, torch.randn(2, 4), masks, certificate=tmp_path / "proof")
    assert report.removed == 1
    assert report.certificate.path == ""
    assert not (tmp_path / "proof").exists()


def test_the_command_says_proved_or_not(tmp_path):
    model, x, masks, _ = case("convolutions")
    shrink(model, x, masks, certificate=tmp_path)
    called = [sys.executable, "-m", "prune_verify", *map(str, files(tmp_path))]
    done = subprocess.run(called, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("PROVED")
    called[-3], called[-2] = called[-2], called[-3]
    done = subprocess.run(called, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("NOT PROVED")


def test_the_small_model_is_not_recorded_again(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("recorded once more")

    monkeypatch.setattr("prune_speedup.torch.certificate.write.Recorder", refuse)
    model, x, masks, _ = case("attention")
    assert shrink(model, x, masks, certificate=tmp_path).certificate.path
    model, x, masks, _ = case("attention")
    with pytest.raises(AssertionError, match="once more"):
        shrink(model, x, masks, certificate=tmp_path, verify=False)


class Places(nn.Module):
    """Lookups, writes to parts, and tensors of one number that meet what was cut."""

    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(4, 6), nn.Linear(6, 2)

    def forward(self, x):
        y = self.up(x)
        state = torch.zeros_like(y) + torch.ones(1, 1)
        state = state * y.sigmoid()
        y = y[torch.tensor([1, -1, 0])] * state
        picked = torch.zeros(5, *y.shape[1:])
        picked[torch.tensor([4, 0, 2])] = y
        picked[1:2].copy_(y[:1])
        grid = picked.view(5, 1, -1).expand(-1, 2, -1)[torch.arange(5), torch.ones(5).long()]
        return self.down(grid * (grid - 1.0))


def test_lookups_and_writes(tmp_path):
    torch.manual_seed(0)
    model = Places().eval()
    masks = {"up": {"weight": torch.ones(6, 4), "bias": torch.ones(6)}}
    masks["up"]["weight"][2], masks["up"]["bias"][2] = 0, 0
    report = shrink(model, torch.randn(3, 4), masks, certificate=tmp_path)
    assert report.removed == 1
    assert report.certificate.reason == ""
    assert check(*files(tmp_path)).steps == report.certificate.steps


class Grouped(nn.Module):
    """Fewer heads of keys than of queries."""

    def __init__(self):
        super().__init__()
        self.q, self.kv, self.out = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x):
        q = self.q(x).unflatten(-1, (4, 2)).transpose(1, 2)
        k, v = self.kv(x).unflatten(-1, (4, 2)).transpose(1, 2).chunk(2, 1)
        y = nn.functional.scaled_dot_product_attention(q, k, v, enable_gqa=True, is_causal=True)
        return self.out(y.transpose(1, 2).flatten(2))


def test_heads_that_share_keys(tmp_path):
    torch.manual_seed(0)
    model = Grouped().eval()
    x = torch.randn(2, 5, 8)
    first = next(iter(units(model, x)))
    report = shrink(model, x, units=[first], certificate=tmp_path)
    assert report.removed == 1
    assert report.certificate.reason == ""
    assert check(*files(tmp_path)).steps == report.certificate.steps


@pytest.mark.parametrize("which", range(3))
def test_a_file_that_is_none(which, tmp_path):
    model, x, masks, _ = case("convolutions")
    shrink(model, x, masks, certificate=tmp_path)
    files(tmp_path)[which].write_text("nothing")
    name = ("ORIGINAL", "SMALL", "CERTIFICATE")[which]
    with pytest.raises(Rejected, match=rf"^{name} \(.*{FILES[which]}\) cannot be read"):
        check(*files(tmp_path))


class Noisy(nn.Module):
    """Adds random numbers, and a tensor that is no buffer."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
        self.kept = [torch.ones(3)]

    def forward(self, x):
        y = self.net(x)
        return y + torch.randn_like(y) + self.kept[0]


def test_what_a_certificate_takes_for_granted(tmp_path):
    model, x = Noisy().eval(), torch.rand(2, 4)
    report = shrink(model, x, units=[next(iter(units(model, x)))], certificate=tmp_path)
    verdict = check(*files(tmp_path))
    assert verdict.assumptions == report.certificate.assumptions
    said = "\n".join(verdict.assumptions)
    assert "inputs of these sizes: 2×4." in said
    assert "It reads random numbers" in said
    assert "no parameter, no buffer and no input" in said


def test_what_is_always_assumed_need_not_be_written(tmp_path):
    model, x, masks, _ = case("convolutions")
    shrink(model, x, masks, certificate=tmp_path)
    path = tmp_path / "certificate.json"
    told = json.loads(path.read_text())
    path.write_text(json.dumps({**told, "assumptions": []}))
    sizes = "×".join(map(str, x.shape))
    assert f"inputs of these sizes: {sizes}." in check(*files(tmp_path)).assumptions[0]
