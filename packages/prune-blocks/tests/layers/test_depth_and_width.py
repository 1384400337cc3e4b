"""One budget for blocks and channels: which of them go, and what is said where none can."""

import json
import sys
from types import ModuleType

import pytest
import torch
from layered import Stack
from torch import nn

import prune_core
from prune_blocks.layers import depth_and_width
from prune_core import BasicPruner, ConfigError, PruneError, Reference, SpeedupError, hookimpl
from prune_core.registry import registered
from prune_toolkit import (
    DependencyAwareAllocator,
    NormalSparsityAllocator,
    NormMetricsCalculator,
    WeightDataCollector,
)

TOKENS = torch.randn(4, 5, 8, generator=torch.Generator().manual_seed(0))


class ByNorm(BasicPruner):
    """Channels by the norms of their weights; no plugin that has such is needed here."""

    granularity = "channels"
    default_types = supported_types = ("Linear",)
    modes = ("normal", "dependency_aware")

    def __init__(self, model, config_list, mode="normal", dummy_input=None):
        self.mode, self.dummy_input = mode, dummy_input
        super().__init__(model, config_list)

    def reset_tools(self):
        self.data_collector = WeightDataCollector(self, channels=True)
        self.metrics_calculator = NormMetricsCalculator(dim=0, p=1)
        self.sparsity_allocator = (
            NormalSparsityAllocator(self, channels=True)
            if self.mode == "normal"
            else DependencyAwareAllocator(self, self.dummy_input)
        )


@pytest.fixture(autouse=True)
def by_norm(monkeypatch):
    class Plugin:
        @hookimpl
        def prune_register_pruners(self):
            return {"by_norm": Reference("toy_channels:ByNorm")}

    module = ModuleType("toy_channels")
    module.ByNorm = ByNorm
    monkeypatch.setitem(sys.modules, "toy_channels", module)
    with registered(Plugin(), "toys"):
        yield


class Half(nn.Module):
    """A layer of which half of the hidden channels do nothing."""

    def __init__(self, width=8):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.fc1.weight.data[::2] = 0
        self.fc1.bias.data[::2] = 0

    def forward(self, x):
        return x + self.fc2(self.fc1(x).relu())


class Row(nn.Module):
    def __init__(self, *layers):
        super().__init__()
        self.layers, self.head = nn.ModuleList(layers), nn.Linear(8, 3)

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return self.head(x)


def full(nothing=False):
    """A layer all of whose channels matter, or which adds nothing at all."""
    layer = Half()
    layer.fc1.reset_parameters()
    if nothing:
        nn.init.zeros_(layer.fc2.weight)
        nn.init.zeros_(layer.fc2.bias)
    return layer


def pruned(model, **options):
    torch.manual_seed(0)
    options = {"target": {"flops": 0.55}, "width": "by_norm", "data": [TOKENS]} | options
    return prune_core.prune(model, "depth_and_width", example_inputs=TOKENS, **options)


def names_of(report):
    return [each.name for each in report.removed]


def state_of(model):
    return [*model.named_modules()], {n: t.clone() for n, t in model.state_dict().items()}


def test_layers_that_add_nothing_go_and_no_channel():
    torch.manual_seed(0)
    model = Row(full(), full(nothing=True), full(), full(nothing=True)).eval()
    expected = model(TOKENS)
    small, report = pruned(model)
    assert small is model
    assert names_of(report) == ["layers.1", "layers.3"]
    assert report.width is None
    assert torch.allclose(small(TOKENS), expected)
    assert report.left["flops"] == pytest.approx(report.flops[1] / report.flops[0])


def test_channels_that_do_nothing_go_and_no_layer():
    torch.manual_seed(0)
    model = Row(*(Half() for _ in range(4))).eval()
    expected = model(TOKENS)
    small, report = pruned(model)
    assert report.removed == []
    assert report.depth is None
    assert [layer.fc1.out_features for layer in small.layers] == [16, 16, 16, 16]
    assert torch.allclose(small(TOKENS), expected, atol=1e-6)


def test_some_of_both():
    torch.manual_seed(0)
    model = Row(Half(), full(nothing=True), Half(), full(nothing=True)).eval()
    whole = prune_core.blocks(model, TOKENS).flops
    expected = model(TOKENS)
    small, report = pruned(model, target={"flops": 0.3})
    assert names_of(report) == ["layers.1", "layers.3"]
    assert [layer.fc1.out_features for layer in small.layers] == [16, 16]
    assert torch.allclose(small(TOKENS), expected, atol=1e-6)
    assert report.flops == (whole, prune_core.blocks(small, TOKENS).flops)
    assert report.flops[1] <= 0.3 * whole
    assert report.parameters[1] == sum(each.numel() for each in small.parameters())
    assert report.depth.difference < 1e-5
    assert report.width.difference < 1e-5


def test_the_report_says_what_was_tried(tmp_path):
    torch.manual_seed(0)
    model = Row(Half(), full(nothing=True), Half(), full(nothing=True)).eval()
    dense = Row(Half(), full(), Half(), full())
    small, report = pruned(model, target={"flops": 0.3})
    assert [len(trial.blocks) for trial in report.trials] == [0, 1, 2, 3]
    losses = [trial.loss for trial in report.trials]
    assert min(losses) == losses[2]
    assert all(trial.left["flops"] <= 0.3 for trial in report.trials)
    [taken] = [line for line in str(report).splitlines() if "<- taken" in line]
    assert taken.split()[0] == "2"
    total = str(report).splitlines()[-1]
    (before, after), (_, flops) = report.parameters, report.flops
    assert total.startswith(f"in total: parameters {before:,} → {after:,} ({after / before:.1%})")
    assert f" → {flops:,} (" in total
    assert json.loads(report.to_json())["trials"][1]["blocks"] == report.trials[1].blocks
    report.save(tmp_path / "small.safetensors")
    again = prune_core.load_pruned(dense, tmp_path / "small.safetensors").eval()
    assert torch.equal(again(TOKENS), small(TOKENS))


def test_the_users_own_loss_decides_on_copies_that_it_may_train():
    seen = []

    def evaluate(small):
        seen.append(small)
        for parameter in small.parameters():
            parameter.data.zero_()
        return -float(len(small.layers))

    model = Stack(4)
    _, report = pruned(model, evaluate=evaluate)
    assert len(seen) == len(report.trials)
    assert all(each is not model for each in seen)
    assert report.removed == []
    assert [trial.loss for trial in report.trials] == [-4, -3, -2]
    assert all(layer.fc1.weight.all() for layer in model.layers)


def test_a_loss_that_the_model_returns_decides():
    class WithLoss(Row):
        def forward(self, x):
            return {"loss": super().forward(x).square().mean()}

    torch.manual_seed(0)
    _, report = pruned(WithLoss(*(full() for _ in range(3))).eval(), depth="leave_one_out")
    assert all(0 < trial.loss < 10 for trial in report.trials)
    assert len(report.trials) > 1


def test_the_numbers_of_blocks_are_the_users():
    _, report = pruned(Stack(4), counts=[2, 1])
    assert [len(trial.blocks) for trial in report.trials] == [1, 2]


def test_of_many_blocks_some_numbers_are_tried():
    assert depth_and_width._spread(3) == [0, 1, 2, 3]
    assert depth_and_width._spread(21) == [0, 3, 6, 9, 12, 15, 18, 21]


def test_blocks_that_are_excluded_stay_and_so_do_channels():
    _, report = pruned(Stack(4), exclude=["layers.0", "layers.1.fc1", "LayerNorm"])
    gone = {name for trial in report.trials for name in trial.blocks}
    assert gone
    assert "layers.0" not in gone
    assert report.model.layers[1].fc1.out_features == 16


def test_channels_are_selected_by_the_names_that_layers_had():
    torch.manual_seed(0)
    row = Row(full(nothing=True), full(), full(nothing=True), full(), full())
    kept, narrower = row.layers[1], row.layers[3:]
    names = ["layers.0.fc1", "layers.3.fc1", "layers.4.fc1"]
    _, report = pruned(row.eval(), target={"flops": 0.45}, counts=[2], targets=names)
    assert names_of(report) == ["layers.0", "layers.2"]
    assert kept.fc1.out_features == 32
    assert all(layer.fc1.out_features < 32 for layer in narrower)
    row = Row(full(nothing=True), full())
    with pytest.raises(ConfigError, match="is left to be made narrower"):
        pruned(row.eval(), target={"flops": 0.3}, counts=[1], targets="layers.0.fc1")


def test_uniform_and_round_to_are_for_the_channels():
    torch.manual_seed(0)
    _, report = pruned(Stack(4), uniform=True, round_to=4)
    widths = {layer.fc1.out_features for layer in report.model.layers}
    assert len(widths) == 1
    assert not widths.pop() % 4


def test_branches_can_be_meant(monkeypatch):
    class WithLoss(Stack):
        def forward(self, x):
            return {"loss": super().forward(x).square().mean()}

    _, report = pruned(WithLoss(3), depth="leave_one_out", blocks=["mlp", "attention"])
    assert any(".fc" in name or "attention" in name for t in report.trials for name in t.blocks)


def test_latency_is_measured_against_the_whole_model(monkeypatch):
    def by_size(small, large, inputs):
        small, large = (sum(p.numel() for p in each.parameters()) for each in (small, large))
        return small / large

    monkeypatch.setattr("prune_speedup.budget.whole.relative_latency", by_size)
    monkeypatch.setattr("prune_speedup.budget.target.relative_latency", by_size)
    model = Stack(4)
    before = sum(each.numel() for each in model.parameters())
    small, report = pruned(model, target={"latency": 0.6})
    after = sum(each.numel() for each in small.parameters())
    assert report.left["latency"] == pytest.approx(after / before)
    assert after <= 0.6 * before
    assert len(report.trials) > 1


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"target": None}, r"say target=, such as target=\{'flops': 0.5\}"),
        ({"target": None, "sparsity": 0.5}, "a share of what is not said"),
        ({"target": {"flop": 0.5}}, "a budget is one of"),
        ({"target": {"flops": 0.001}}, "which no way meets: with 0 blocks gone, target"),
        ({"data": None}, "was given no data"),
        ({"depth": "by_norm"}, "criterion for blocks: angular_distance, block_influence"),
        ({"depth": 3}, "depth is 3; it must be the name"),
        ({"width": "block_influence"}, "it must be the name of a pruner of output channels"),
        ({"width": 3}, "width is 3; it must be the name"),
        ({"counts": 2}, "counts is 2; it must be some numbers"),
        ({"counts": [-1]}, "it must be some numbers of blocks"),
        ({"counts": []}, "it must be some numbers of blocks"),
        ({"counts": [1, 9]}, "counts has 9, and the model has 3 blocks that may go"),
        ({"counts": [3]}, "at most 2 may go, so that one is left"),
        ({"width_options": {"round_to": 2}}, "'round_to', which depth_and_width says itself"),
        ({"evaluate": lambda model: "low"}, "must return a loss, one number"),
        ({"evaluate": lambda model: float("nan")}, "its loss is nan"),
    ],
)
def test_what_cannot_be_is_said(options, match):
    model = Stack(3)
    modules, tensors = state_of(model)
    with pytest.raises(ConfigError, match=match):
        pruned(model, **options)
    assert state_of(model)[0] == modules
    assert all(torch.equal(t, tensors[n]) for n, t in model.state_dict().items())


def test_a_model_that_is_fast_enough_is_no_success(monkeypatch):
    monkeypatch.setattr("prune_speedup.budget.whole.relative_latency", lambda *models: 0.9)
    with pytest.raises(ConfigError, match="with 0 blocks gone, the whole model meets"):
        pruned(Stack(3), target={"latency": 0.95}, counts=[0])


def test_data_in_another_order_each_time():
    class Shuffled:
        def __init__(self):
            self.turn = 0

        def __iter__(self):
            self.turn += 1
            yield from [TOKENS, TOKENS + 1][:: 1 if self.turn % 2 else -1]

    with pytest.raises(PruneError, match="Give data in an order that stays"):
        pruned(Stack(3), data=Shuffled())


def test_a_model_that_is_wrapped():
    model, _ = prune_core.prune(Stack(3), "by_norm", sparsity=0.5, example_inputs=TOKENS)
    with pytest.raises(ConfigError, match="still wrapped"):
        pruned(model)


def test_what_fails_in_the_end_is_put_back(monkeypatch):
    model = Stack(4)
    modules, tensors = state_of(model)
    make_small = depth_and_width.make_small

    def failing(model, *args, verify, **options):
        report = make_small(model, *args, verify=verify, **options)
        if verify:
            for each in model.parameters():
                each.data.add_(1)
            raise SpeedupError("not the same")
        return report

    monkeypatch.setattr(depth_and_width, "make_small", failing)
    with pytest.raises(SpeedupError, match="not the same"):
        pruned(model, counts=[1])
    assert state_of(model)[0] == modules
    assert all(torch.equal(t, tensors[n]) for n, t in model.state_dict().items())
