"""Parts that are chosen by name, ours and those of strangers."""

import sys
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import prune_core
from prune_core import ComposedPruner, ConfigError, UnknownNameError, hookimpl
from prune_core.registry import Reference, entries, registered
from prune_toolkit import (
    ChannelPruner,
    DataCollector,
    MetricsCalculator,
    NormalSparsityAllocator,
    NormMetricsCalculator,
    RowSparsityAllocator,
    SparsityAllocator,
    StraightMetricsCalculator,
    WeightDataCollector,
)
from prune_toolkit.parts import accepted, make_part

RULES = [{"op_types": ["Linear"], "sparsity": 0.5}]


def made():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4))


class Spread(ChannelPruner):
    def collector(self):
        return WeightDataCollector(self, channels=True)

    def calculator(self):
        return NormMetricsCalculator(dim=0, p=2)


class Every(SparsityAllocator):
    """A stranger's allocator: masks every second score."""

    def __init__(self, pruner, channels=False, every=2):
        super().__init__(pruner, channels=channels)
        self.every = every

    def generate_sparsity(self, metrics):
        return {
            name: self._expand_mask(name, torch.arange(len(scores)) % self.every > 0)
            for name, scores in metrics.items()
        }


class Noise(MetricsCalculator):
    def __init__(self, pruner, level):
        super().__init__()
        self.pruner, self.level = pruner, level

    def calculate_metrics(self, data):
        return {name: tensor.abs() + self.level for name, tensor in data.items()}


@pytest.fixture
def stranger(monkeypatch):
    class Hooks:
        @hookimpl
        def prune_register_parts(self):
            return {
                "allocator": {"every": Reference("acme_parts:Every")},
                "metric": {"noise": Reference("acme_parts:Noise")},
            }

    monkeypatch.setitem(sys.modules, "acme_parts", SimpleNamespace(Every=Every, Noise=Noise))
    with registered(Hooks(), "acme"):
        yield


def test_a_pruner_is_put_together_by_names():
    pruner = ComposedPruner(
        made(),
        RULES,
        collector="weight",
        metric="norm",
        allocator="normal",
        channels=True,
        dim=0,
        p=1,
    )
    assert isinstance(pruner.data_collector, WeightDataCollector)
    assert pruner.data_collector.channels
    assert pruner.metrics_calculator.p == 1.0
    assert isinstance(pruner.sparsity_allocator, NormalSparsityAllocator)
    _, masks = pruner.compress()
    assert int(masks["0"]["bias"].sum()) == 4


def test_parts_may_be_classes_too():
    pruner = ComposedPruner(made(), RULES, WeightDataCollector, StraightMetricsCalculator, "row")
    assert isinstance(pruner.sparsity_allocator, RowSparsityAllocator)


def test_data_go_to_the_parts_that_want_them():
    pruner = ComposedPruner(
        made(),
        RULES,
        "input_norm",
        "straight",
        "row",
        calibrate=lambda model: model(torch.ones(2, 6)),
        batches=1,
    )
    _, masks = pruner.compress()
    assert pruner.data_collector.seen == 1
    assert masks["0"]["weight"].sum(1).tolist() == [3] * 8


def test_it_is_registered_by_a_name_itself():
    _, masks = prune_core.get_pruner("composed")(
        made(), RULES, allocator="bank", balance_gran=[1, 2]
    ).compress()
    assert masks["0"]["weight"].view(8, 3, 2).sum(-1).unique().tolist() == [1]


@pytest.mark.parametrize(
    "entry",
    entries("reconstructor") + entries("allocator") + entries("metric") + entries("collector"),
    ids=lambda entry: f"{entry.kind}-{entry.name}",
)
def test_every_registered_part_says_what_it_is_and_can_be_had(entry):
    part = entry.load()
    assert entry.reference.summary.endswith(".")
    assert part.__doc__
    assert accepted(part) is not None


def test_strangers_parts_are_had_in_the_same_way(stranger):
    _, masks = ComposedPruner(made(), RULES, metric="noise", level=1.0).compress()
    assert int(masks["0"]["weight"].sum()) == 24
    pruner = ComposedPruner(
        made(), RULES, "weight", "norm", "acme:every", dim=0, channels=True, every=4
    )
    assert pruner.compress()[1]["0"]["bias"].tolist() == [False, True, True, True] * 2


def test_a_strangers_allocator_is_a_mode_of_any_pruner(stranger):
    _, masks = Spread(made(), RULES, mode="every").compress()
    assert masks["2"]["bias"].tolist() == [False, True, False, True]
    _, masks = Spread(made(), RULES, mode="acme:every").compress()
    assert masks["2"]["bias"].tolist() == [False, True, False, True]


def test_a_stranger_who_takes_our_name_does_not_get_our_users(monkeypatch):
    class Hooks:
        @hookimpl
        def prune_register_parts(self):
            return {"allocator": {"normal": Reference("acme_parts:Every")}}

    monkeypatch.setitem(sys.modules, "acme_parts", SimpleNamespace(Every=Every))
    with registered(Hooks(), "acme"):
        pruner = Spread(made(), RULES)
        assert isinstance(pruner.sparsity_allocator, NormalSparsityAllocator)
        assert isinstance(Spread(made(), RULES, mode="acme:normal").sparsity_allocator, Every)


def test_modes_are_checked_as_before(stranger):
    with pytest.raises(ConfigError, match=r"mode is 'bank'; the modes of Spread are 'normal'"):
        Spread(made(), RULES, mode="bank")
    with pytest.raises(ConfigError, match="mode is 'nothing'"):
        Spread(made(), RULES, mode="nothing")


@pytest.mark.parametrize(
    ("how", "error", "match"),
    [
        ({"collector": "weights"}, UnknownNameError, "Did you mean 'weight'"),
        ({"metric": 5}, ConfigError, "The metric is 5"),
        ({"collector": "input_norm"}, ConfigError, r"collector 'input_norm' needs calibrate="),
        ({"allocator": "nm", "n": 2}, ConfigError, r"allocator 'nm' needs m="),
        ({"metric": "norm", "q": 2}, ConfigError, r"'q' is an argument of none of the parts"),
        ({"chanels": True}, ConfigError, "Did you mean 'channels'"),
    ],
)
def test_mistakes_are_told(how, error, match):
    with pytest.raises(error, match=match):
        ComposedPruner(made(), RULES, **how)


def test_a_part_gets_the_pruner_under_either_name():
    class One(DataCollector):
        def collect(self):
            return {}

    class Two:
        def __init__(self, pruner, more=1):
            self.pruner, self.more = pruner, more

    pruner = Spread(made(), RULES)
    assert make_part("collector", One, pruner, {}).compressor is pruner
    made_two = make_part("allocator", Two, pruner, {"more": 2, "unknown": 3})
    assert (made_two.pruner, made_two.more) == (pruner, 2)
