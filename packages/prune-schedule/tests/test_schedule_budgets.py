"""Budgets in parameters, FLOPs and latency, for every search."""

import json
import sys
from math import prod
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from prune_core import ConfigError, PruneError, Reference, hookimpl, shrink, unwrap
from prune_core.registry import registered
from prune_schedule import NetAdaptPruner, SensitivityPruner, SimulatedAnnealingPruner
from prune_schedule.budget.model import ModelBudget
from prune_speedup.budget.costs import workload_of
from prune_speedup.torch.record.recorder import trace
from prune_speedup.torch.rules import has_rule

RULES = [{"op_types": ["Linear"]}]
CAPS = {"0": 0.99, "2": 0.99, "4": 0.99}


def chain():
    """Layers of 4 × 8, 8 × 10 and 10 × 2 weights: 132, and 2 · 132 FLOPs for one input."""
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Linear(4, 8, bias=False), nn.ReLU(), nn.Linear(8, 10, bias=False), nn.ReLU()),
        nn.Linear(10, 2, bias=False),
    )


class Residual(nn.Module):
    """What `stem` and `out` make is added, so they lose the same channels."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.inner = nn.Conv2d(8, 12, 3, padding=1)
        self.out = nn.Conv2d(12, 8, 3, padding=1)
        self.head = nn.Linear(8, 10)

    def forward(self, x):
        x = torch.relu(self.norm(self.stem(x)))
        x = x + self.out(torch.relu(self.inner(x)))
        return self.head(x.mean((2, 3)))


def residual():
    torch.manual_seed(0)
    model = Residual()
    nn.init.uniform_(model.norm.bias, -1, 1)
    return model


SEARCHES = {
    "annealing": (SimulatedAnnealingPruner, {"cool_down_rate": 0.7}),
    "sensitivity": (SensitivityPruner, {"sparsity_per_iter": 0.25}),
    "netadapt": (NetAdaptPruner, {"sparsity_per_iteration": 0.1}),
}
X = {"chain": torch.rand(1, 4), "residual": torch.rand(2, 3, 8, 8)}


def search(name, model, x, target, rules=None, **arguments):
    kind, more = SEARCHES[name]
    rules = rules or [{"op_types": ["Linear", "Conv2d"]}]
    more = {"pruning_algorithm": "units", "target": target, "dummy_input": x, **more, **arguments}
    return kind(model, rules, evaluator=lambda model: -model(x).square().mean().item(), **more)


def budget(target, model=None):
    return search("annealing", model or chain(), X["chain"], target, RULES).budget


def test_what_is_left_by_hand():
    found = budget({"flops": 0.5, "parameters": 0.5})
    assert found.groups == [["0"], ["2"]]  # what the last layer makes is returned
    # 4 of 8 and 5 of 10 channels: 4 · 4 + 4 · 5 + 5 · 2 = 46 of 132
    left = found.left({"0": 0.5, "2": 0.5, "4": 0.0})
    assert left == pytest.approx({"flops": 46 / 132, "parameters": 46 / 132})
    # 0.24 of 8 is no channel: 32 + 8 · 5 + 10
    assert found.left({"0": 0.12, "2": 0.5, "4": 0.9})["flops"] == pytest.approx(82 / 132)


def test_the_least_that_meets_a_target_by_hand():
    found = budget({"flops": 0.5})
    # 66 of 132: without channels of the first layer, 32 + 10 · n for n channels of the second
    assert found.reduced(dict.fromkeys(CAPS, 0.0), ["2"], "flops", 0.5) == {
        "0": 0.0,
        "2": 0.7,
        "4": 0.0,
    }
    assert found.reduced({"0": 0.0, "2": 0.9, "4": 0.0}, ["2"], "flops", 0.1) is None
    # As many per cent of each: 2 of 8 and 3 of 10 leave 80, 3 of 8 and 3 of 10 leave 69, and
    # 3 of 8 and 4 of 10 are the first to leave 66 or less: 20 + 30 + 12 = 62
    plan = found.fitted(dict.fromkeys(CAPS, 1.0), dict.fromkeys(CAPS, 0.0))
    assert plan == {"0": 3 / 8, "2": 4 / 10, "4": 0.0}


@pytest.mark.parametrize("target", [{"flops": 0.5}, {"parameters": 0.6}])
@pytest.mark.parametrize("name", SEARCHES)
def test_what_a_search_ends_with_can_be_removed(name, target):
    model = residual()
    result = search(name, model, X["residual"], target).run()
    assert result.complete
    assert result.sparsities["stem"] == result.sparsities["out"]
    pruner_sees = model(X["residual"])
    [kind] = target
    unwrap(model)
    report = shrink(model, X["residual"], result.masks)
    before, after = getattr(report, kind)
    assert after / before <= target[kind]
    chosen = next(t for t in result.trials if t["score"] == result.score)
    assert after / before == pytest.approx(chosen["left"][kind])
    # Evaluation saw what is left, with nothing added by a normalisation after a masked channel.
    model.eval()
    assert torch.allclose(model.train()(X["residual"]), pruner_sees, atol=1e-5)


def test_several_budgets_are_all_met():
    target = {"flops": 0.6, "parameters": 0.4}
    result = search("netadapt", residual(), X["residual"], target).run()
    left = next(t["left"] for t in result.trials if t["score"] == result.score)
    assert left["flops"] <= 0.6
    assert left["parameters"] <= 0.4


@pytest.mark.parametrize("name", SEARCHES)
def test_a_latency_that_was_measured_is_not_measured_again(name, tmp_path):
    def make():
        torch.manual_seed(0)
        layers = [nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU()]
        more = {"sparsity_per_iteration": 0.2} if name == "netadapt" else {}
        return search(
            name,
            nn.Sequential(*layers, nn.Linear(512, 8)),
            torch.ones(64, 512),
            {"latency": 0.6},
            RULES,
            log_dir=tmp_path,
            **more,
        )

    first = make()
    whole = first.run()
    chosen = next(t for t in whole.trials if t["score"] == whole.score)
    assert chosen["left"]["latency"] <= 0.6
    measured = (tmp_path / "latency.json").read_text()
    again = make()
    again.load_state_dict(first.state_dict())
    assert again.run().sparsities == whole.sparsities
    assert (tmp_path / "latency.json").read_text() == measured


def test_what_was_measured_of_one_model_is_not_said_of_another(tmp_path):
    def times(width):
        model = nn.Sequential(nn.Linear(width, 64), nn.ReLU(), nn.Linear(64, 8))
        search(
            "annealing",
            model,
            torch.ones(4, width),
            {"latency": 0.95},
            [{"op_types": ["Linear"], "max_sparsity_per_layer": 0.9}],
            log_dir=tmp_path,
            stop_temperature=99,
        ).budget.left({"0": 0.5, "2": 0.0})
        return json.loads((tmp_path / "latency.json").read_text())

    first = times(32)
    both = times(48)
    assert len(both) == 2 * len(first) == 2
    assert times(32) == both
    for content in ("{", "[]", '{"a": "b"}'):
        (tmp_path / "latency.json").write_text(content)
        with pytest.raises(PruneError, match=r"latency.json keeps what was measured and cannot"):
            times(32)


def test_a_latency_needs_a_place():
    pruner = search(
        "annealing", chain(), X["chain"], {"latency": 0.5}, RULES, storage="sqlite:///:memory:"
    )
    with pytest.raises(ConfigError, match="give log_dir="):
        assert pruner.budget


@pytest.mark.parametrize(
    ("said", "target", "arguments"),
    [
        ("target has 'flop'; a budget is one of", {"flop": 0.5}, {}),
        ("target['flops'] is 1.5", {"flops": 1.5}, {}),
        ("give dummy_input=", {"flops": 0.5}, {"dummy_input": None}),
        (
            "config_list[0] says 'sparsity': 0.5, and target is",
            {"flops": 0.5},
            {"rules": [{"sparsity": 0.5, "op_types": ["Linear"]}]},
        ),
        ("less can be removed", {"flops": 0.5}, {"pruning_algorithm": "smallest"}),
        ("with as much gone as may go 0.053 is left", {"flops": 0.01}, {}),
    ],
)
def test_a_mistake_is_named(said, target, arguments):
    model, x = chain(), X["chain"]
    with pytest.raises(ConfigError) as caught:
        search("annealing", model, x, target, **{"rules": RULES, **arguments}).run()
    assert said in str(caught.value)


def test_layers_that_belong_together_need_an_algorithm_that_knows():
    with pytest.raises(ConfigError, match="the same ones in layers that belong together"):
        search(
            "netadapt", residual(), X["residual"], {"flops": 0.5}, pruning_algorithm="channels"
        ).run()


def test_a_group_that_is_not_selected_as_a_whole_stays_dense():
    rules = [{"op_names": ["stem", "inner"]}]
    pruner = search(
        "annealing", residual(), X["residual"], {"flops": 0.9}, rules, pruning_algorithm="channels"
    )
    assert pruner.budget.groups == [["inner"]]
    assert pruner.run().sparsities["stem"] == 0.0


# --- state ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SEARCHES)
def test_a_state_is_plain_data_and_the_search_goes_on_from_it(name):
    calls = []

    def stops(model):
        calls.append(1)
        if len(calls) == 4:
            raise SystemExit
        return -model(X["chain"]).square().mean().item()

    whole = search(name, chain(), X["chain"], {"flops": 0.5}, RULES).run()
    stopped = search(name, chain(), X["chain"], {"flops": 0.5}, RULES)
    with pytest.raises(SystemExit):
        stopped.run(stops)
    state = json.loads(json.dumps(stopped.state_dict()))
    again = search(name, chain(), X["chain"], {"flops": 0.5}, RULES)
    again.load_state_dict(state)
    result = again.run()
    assert [t["score"] for t in result.trials] == [t["score"] for t in whole.trials]
    assert [t["seconds"] for t in result.trials[:3]] == [
        t["seconds"] for t in json.loads(state["trials"])
    ]
    assert result.sparsities == whole.sparsities


def test_a_state_of_another_search_is_refused():
    state = search("annealing", chain(), X["chain"], {"flops": 0.5}, RULES).state_dict()
    other = search("annealing", chain(), X["chain"], {"flops": 0.6}, RULES)
    with pytest.raises(ConfigError, match="The state is of a search whose target is"):
        other.load_state_dict(state)
    with pytest.raises(ConfigError, match="The state has no 'run'"):
        other.load_state_dict({})


def test_a_checkpoint_that_is_damaged(tmp_path):
    path = tmp_path / "search.json"
    path.write_text("{")
    arguments = {"target": {"flops": 0.5}, "rules": RULES, "checkpoint": path}
    with pytest.raises(PruneError, match="cannot be read"):
        search("annealing", chain(), X["chain"], **arguments).run()
    assert path.read_text() == "{"
    path.unlink()
    result = search("annealing", chain(), X["chain"], **arguments).run()
    assert len(json.loads(path.read_text())["trials"]) == len(result.trials)
    with pytest.raises(ConfigError, match="whose seed is 0; here it is 1"):
        search("annealing", chain(), X["chain"], **arguments, seed=1).run()
    with pytest.raises(ConfigError, match="keep one of the two"):
        search("annealing", chain(), X["chain"], **arguments, experiment_data_dir=tmp_path).run()


def test_the_same_channels_are_the_same_cost():
    pruner = search("annealing", residual(), X["residual"], {"flops": 0.5})
    found = pruner.budget
    assert isinstance(found, ModelBudget)
    assert found.groups == [["stem", "out"], ["inner"]]
    one = found.left({"stem": 0.5, "out": 0.5, "inner": 0.25, "head": 0.0})
    # An attempt to prune one of two that belong together prunes none of them.
    assert found.left({"stem": 0.5, "out": 0.0, "inner": 0.0, "head": 0.0})["flops"] == 1.0
    assert one["flops"] < 1.0


def test_a_search_keeps_to_a_cost_that_a_plugin_registers(monkeypatch):
    def traffic(workload):
        return sum(prod(s) for op in workload.operations for s in (*op.inputs, *op.outputs))

    class Costs:
        @hookimpl
        def prune_register_costs(self):
            return {"traffic": Reference("acme_costs:traffic")}

    monkeypatch.setitem(sys.modules, "acme_costs", SimpleNamespace(traffic=traffic))
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 16, 3), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4)),
    ).eval()
    x = torch.rand(1, 1, 8, 8)

    def cost():
        return traffic(workload_of(trace(model, x, known=has_rule)))

    dense = cost()
    with registered(Costs(), "acme"):
        search = SimulatedAnnealingPruner(
            model,
            [{"op_types": ["Conv2d"]}],
            lambda model: -model(x).square().mean().item(),
            pruning_algorithm="units",
            target={"traffic": 0.7},
            dummy_input=x,
            cool_down_rate=0.5,
        )
        result = search.run()
    assert all(trial["left"]["traffic"] <= 0.7 for trial in result.trials)
    search.unwrap()
    shrink(model, x, result.masks)
    assert cost() / dense <= 0.7
