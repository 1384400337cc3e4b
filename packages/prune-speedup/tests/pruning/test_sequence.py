"""Masks that are made block by block, each block on what the pruned ones before it give."""

import copy
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from torch import nn

import prune_core
from prune_core import BasicPruner, ConfigError, PruneError, hookimpl
from prune_core.registry import registered
from prune_toolkit import (
    ActivationCollector,
    ChannelPruner,
    GlobalSparsityAllocator,
    GradientCollector,
    InputNormCollector,
    InputWatch,
    LayerSolver,
    MetricsCalculator,
    NormalSparsityAllocator,
    OutlierSparsityAllocator,
    RowSparsityAllocator,
    StraightMetricsCalculator,
    WeightDataCollector,
)


class Times(MetricsCalculator):
    """Weights times inputs."""

    def __init__(self, pruner):
        super().__init__()
        self.pruner = pruner

    def calculate_metrics(self, data):
        wrappers = self.pruner.get_modules_wrapper()
        return {n: wrappers[n].parameter("weight").detach().abs() * d for n, d in data.items()}


class Scored(BasicPruner):
    """Prunes the smallest weights times inputs."""

    allocator = NormalSparsityAllocator

    def reset_tools(self):
        self.data_collector = InputNormCollector(self, *self.calibration_of([]))
        self.metrics_calculator = Times(self)
        self.sparsity_allocator = self.allocator(self)


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.q, self.k = nn.Linear(8, 8), nn.Linear(8, 8)
        self.up, self.down = nn.Linear(8, 16), nn.Linear(16, 8)

    def forward(self, x):
        x = x + torch.tanh(self.q(x)) * self.k(x)
        return x + self.down(torch.relu(self.up(x)))


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(Block() for _ in range(3))
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean(1))


BATCHES = [torch.randn(6, 4, 8, generator=torch.Generator().manual_seed(seed)) for seed in range(3)]
RULES = [{"op_types": ["Linear"], "sparsity": 0.5}, {"op_names": ["head"], "exclude": True}]


def calibrate(model):
    for batch in BATCHES:
        model(batch)


def made():
    torch.manual_seed(0)
    return Model()


def norms(model, *names):
    """What goes into layers of a model now, by nothing but hooks."""
    seen = {name: [] for name in names}
    layers = [model.get_submodule(name) for name in names]
    handles = [
        layer.register_forward_pre_hook(lambda _, args, name=name: seen[name].append(args[0]))
        for name, layer in zip(names, layers, strict=True)
    ]
    with torch.no_grad():
        calibrate(model)
    for handle in handles:
        handle.remove()
    return {
        n: torch.cat([x.flatten(0, 1) for x in xs]).double().norm(dim=0) for n, xs in seen.items()
    }


def by_hand(groups):
    """Prune group after group of layers by a model that has lost what came before."""
    model = made().eval()
    masks = {}
    for group in groups:
        lengths = norms(model, *group)
        for name in group:
            weight = model.get_submodule(name).weight
            scores = weight.detach().abs() * lengths[name].float()
            kept = torch.ones(scores.numel(), dtype=torch.bool)
            kept[scores.flatten().argsort(stable=True)[: scores.numel() // 2]] = False
            masks[name] = kept.view(scores.shape)
        with torch.no_grad():
            for name in group:
                model.get_submodule(name).weight.mul_(masks[name])
    return masks


PARTS = ("q", "k", "up", "down")
ONCE = [[f"blocks.{i}.{part}" for i in range(3) for part in PARTS]]
BY_BLOCK = [[f"blocks.{i}.{part}" for part in PARTS] for i in range(3)]
BY_LAYER = [
    [f"blocks.{i}.{part}" for part in group]
    for i in range(3)
    for group in (("q", "k"), ("up",), ("down",))
]


@pytest.mark.parametrize(
    ("sequential", "groups"),
    [(False, ONCE), (True, BY_BLOCK), ("block", BY_BLOCK), ("layer", BY_LAYER)],
)
def test_masks_are_those_of_going_through_the_model_by_hand(sequential, groups):
    pruner = Scored(made(), RULES, calibrate=calibrate, sequential=sequential)
    _, masks = pruner.compress()
    expected = by_hand(groups)
    assert masks.keys() == expected.keys()
    for name, mask in expected.items():
        assert torch.equal(masks[name]["weight"], mask), name
    assert torch.equal(pruner.masks["blocks.2.down"]["weight"], expected["blocks.2.down"])


def test_the_three_ways_make_three_sets_of_masks():
    every = [by_hand(groups)["blocks.2.down"] for groups in (ONCE, BY_BLOCK, BY_LAYER)]
    assert not torch.equal(every[0], every[1])
    assert not torch.equal(every[1], every[2])


def test_a_criterion_of_activations_goes_block_by_block_as_well():
    class Quiet(ChannelPruner):
        def collector(self):
            return ActivationCollector(self, *self.calibration_of([]))

        def calculator(self):
            return StraightMetricsCalculator()

    def masks(**how):
        return Quiet(made(), RULES, calibrate=calibrate, **how).compress()[1]

    once, several = masks(), masks(sequential=True)
    assert torch.equal(once["blocks.0.q"]["bias"], several["blocks.0.q"]["bias"])
    assert any(not torch.equal(once[n]["bias"], several[n]["bias"]) for n in once)


def test_a_criterion_without_data_makes_the_same_masks_and_weights_are_fitted_on_the_way():
    class Weights(BasicPruner):
        def reset_tools(self):
            self.data_collector = WeightDataCollector(self)
            self.metrics_calculator = StraightMetricsCalculator()
            self.sparsity_allocator = NormalSparsityAllocator(self, transform=torch.abs)

    def lost(**how):
        model, dense = made(), made()
        Weights(model, RULES, calibrate=calibrate, **how).compress()
        with torch.no_grad():
            return float(sum((model(x) - dense(x)).square().mean() for x in BATCHES))

    plain = lost()
    assert lost(sequential=True) == plain
    assert lost(reconstruct="least_squares") < 0.8 * plain
    assert lost(reconstruct="least_squares", sequential=True) < 0.8 * plain


@pytest.mark.parametrize("allocator", [GlobalSparsityAllocator, OutlierSparsityAllocator])
def test_what_compares_modules_settles_their_ratios_on_the_dense_model(allocator):
    class Compared(Scored):
        pass

    Compared.allocator = allocator
    once = Compared(made(), RULES, calibrate=calibrate)
    several = Compared(made(), RULES, calibrate=calibrate, sequential=True)
    _, dense_masks = once.compress()
    _, masks = several.compress()
    for name, mask in dense_masks.items():
        assert int(masks[name]["weight"].sum()) == int(mask["weight"].sum()), name
    assert any(not torch.equal(masks[n]["weight"], m["weight"]) for n, m in dense_masks.items())
    assert several.get_modules_wrapper()["blocks.0.q"].config["sparsity"] == 0.5


def test_what_is_masked_stays_masked_when_more_is_asked_for():
    pruner = Scored(made(), RULES, calibrate=calibrate, sequential=True)
    first = {n: m["weight"].clone() for n, m in pruner.compress()[1].items()}
    for wrapper in pruner.get_modules_wrapper().values():
        wrapper.config["sparsity"] = 0.75
    _, masks = pruner.compress()
    for name, mask in first.items():
        assert int(masks[name]["weight"].sum()) == mask.numel() // 4
        assert not (masks[name]["weight"] & ~mask).any()


class Rounding(LayerSolver):
    """Keeps the weights of the inputs that vary most, and rounds them."""

    def solve(self, problem):
        lost = int(problem.sparsity * problem.weight.shape[-1])
        kept = torch.ones_like(problem.weight, dtype=torch.bool)
        order = problem.statistics.gram.diagonal(dim1=-2, dim2=-1)[0].argsort()
        kept[..., order[:lost]] = False
        if problem.alive is not None:
            kept &= problem.alive
        return kept, problem.weight.round()


class Solved(Scored):
    layer_solver = Rounding()


@pytest.mark.parametrize("sequential", [False, True])
def test_a_solver_gives_masks_and_weights_at_once(sequential):
    model = made()
    pruner = Solved(model, RULES, calibrate=calibrate, sequential=sequential)
    _, masks = pruner.compress()
    inner = model.blocks[1].up.module
    mask = masks["blocks.1.up"]["weight"]
    assert int(mask.sum()) == mask.numel() // 2
    dense = made()
    assert torch.equal(inner.weight[mask], dense.blocks[1].up.weight[mask].round())
    # What is masked keeps its value beneath.
    assert torch.equal(inner.weight[~mask], dense.blocks[1].up.weight[~mask])
    prune_core.unwrap(model, apply=False)
    assert all(
        torch.equal(a, b) for a, b in zip(model.parameters(), dense.parameters(), strict=True)
    )


def test_gradients_and_coupled_channels_are_refused():
    class Graded(Scored):
        def reset_tools(self):
            super().reset_tools()
            self.data_collector = GradientCollector(self, calibrate)

    pruner = Graded(made(), RULES, calibrate=calibrate, sequential=True)
    with pytest.raises(ConfigError, match="scores by gradients"):
        pruner.compress()

    class Coupled(ChannelPruner):
        def collector(self):
            return WeightDataCollector(self, channels=True)

        def calculator(self):
            return StraightMetricsCalculator()

    pruner = Coupled(
        made(), RULES, "dependency_aware", BATCHES[0], calibrate=calibrate, sequential=True
    )
    with pytest.raises(ConfigError, match="belong together over the whole model"):
        pruner.compress()
    with pytest.raises(ConfigError, match="sequential needs calibrate="):
        Coupled(made(), RULES, sequential=True)
    with pytest.raises(ConfigError, match="sequential is 'blocks'"):
        Scored(made(), RULES, calibrate=calibrate, sequential="blocks")


def test_a_failure_half_way_leaves_the_model_as_it_was():
    class Failing(Rounding):
        calls = 0

        def solve(self, problem):
            self.calls += 1
            if self.calls == 7:
                raise PruneError("the seventh layer cannot be solved")
            return super().solve(problem)

    class Broken(Scored):
        layer_solver = Failing()

    model = made()
    pruner = Broken(model, RULES, calibrate=calibrate)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(PruneError, match="seventh"):
        pruner.compress()
    assert all(torch.equal(before[n], v) for n, v in model.state_dict().items())
    assert all(bool(m.all()) for tensors in pruner.masks.values() for m in tensors.values())
    _, masks = pruner.compress()  # and it can be tried again
    assert len(masks) == 12


class Listener:
    def __init__(self):
        self.heard = []

    @hookimpl
    def prune_progress(self, task):
        if task.unit == "block" and task.done:
            pace = task.pace is not None
            self.heard.append((task.title, task.done, task.total, task.said, pace, task.state))


def test_progress_is_told_block_by_block(tmp_path, monkeypatch):
    how = {"calibrate": calibrate, "sequential": True, "checkpoint": tmp_path}
    listener = Listener()
    with registered(listener):
        Scored(made(), RULES, **how).compress()
    assert listener.heard == [
        ("Scored", 1, 3, "blocks.0.q and 3 more", True, "running"),
        ("Scored", 2, 3, "blocks.1.q and 3 more", True, "running"),
        ("Scored", 3, 3, "blocks.2.q and 3 more", True, "running"),
        ("Scored", 3, 3, "blocks.2.q and 3 more", True, "ended"),
    ]
    # What an earlier start has done says nothing of how long the rest takes.
    again = Listener()
    (tmp_path / "block-0002.safetensors").unlink()
    with registered(again):
        Scored(made(), RULES, **how).compress()
    assert [(done, pace) for _, done, _, _, pace, _ in again.heard] == [
        (1, False),
        (2, False),
        (3, True),
        (3, True),
    ]


# --- killed and started again -----------------------------------------------------------------


def state_of(pruner):
    values = {n: v.clone() for n, v in pruner.bound_model.state_dict().items()}
    return values | {f"{n}!": m["weight"].clone() for n, m in pruner.masks.items()}


class Stop(Exception):
    pass


@pytest.mark.parametrize("sequential", [True, False, "layer"])
@pytest.mark.parametrize("at", [2, 3])
def test_what_was_stopped_goes_on_and_ends_the_same(at, sequential, tmp_path, monkeypatch):
    how = {"calibrate": calibrate, "sequential": sequential, "reconstruct": "least_squares"}
    whole = Scored(made(), RULES, **how)
    whole.compress()

    ran = []
    original = InputWatch.gathered

    def gathered(self, required=None):
        ran.append(set(self.modules))
        if len(ran) > at and stopping:
            raise Stop
        return original(self, required)

    monkeypatch.setattr(InputWatch, "gathered", gathered)
    stopping = True
    stopped = Scored(made(), RULES, checkpoint=tmp_path, **how)
    with pytest.raises(Stop):
        stopped.compress()
    stopping, done = False, len(ran)
    ran.clear()
    again = Scored(made(), RULES, checkpoint=tmp_path, **how)
    again.compress()
    found, expected = state_of(again), state_of(whole)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    if sequential is True:
        assert len(ran) < 6  # of each block scores and products; the first are not gathered again
        assert done


def test_what_is_complete_is_read_and_not_computed(tmp_path, monkeypatch):
    how = {"calibrate": calibrate, "sequential": True, "checkpoint": tmp_path}
    first = Scored(made(), RULES, **how)
    first.compress()
    monkeypatch.setattr(InputWatch, "gathered", lambda *_: pytest.fail("it was computed"))
    again = Scored(made(), RULES, **how)
    again.compress()
    assert all(torch.equal(state_of(first)[n], v) for n, v in state_of(again).items())


def test_the_work_of_another_run_is_refused_or_replaced(tmp_path):
    how = {"calibrate": calibrate, "sequential": True, "checkpoint": tmp_path}
    Scored(made(), RULES, **how).compress()
    # What is complete belongs to a run that is over: another one takes its place.
    rules = [{**RULES[0], "sparsity": 0.25}, RULES[1]]
    Scored(made(), rules, **how).compress()
    files = sorted(tmp_path.iterdir())
    assert len(files) == 3
    files[-1].unlink()
    with pytest.raises(ConfigError, match=r"holds the work of another run.*set the seed"):
        Scored(made(), RULES, **how).compress()
    files[0].write_bytes(b"rubbish")
    with pytest.raises(ConfigError, match="is damaged"):
        Scored(made(), rules, **how).compress()


SCRIPT = """
import os, signal, sys
import torch
sys.path.insert(0, {here!r})
import test_sequence as t
from prune_toolkit.journal import Journal

folder, kill = sys.argv[1], sys.argv[2]
write = Journal.write

def killing(self, number, done, *, last):
    write(self, number, done, last=last)
    if number == 1 and kill == "kill":
        os.kill(os.getpid(), signal.SIGKILL)

Journal.write = killing
pruner = t.Solved(
    t.made(), t.RULES, calibrate=t.calibrate, sequential=True, checkpoint=folder + "/done"
)
pruner.compress()
torch.save(t.state_of(pruner), folder + "/result.pt")
"""


def test_a_process_that_is_killed_goes_on_bit_for_bit(tmp_path):
    here = str(Path(__file__).parent)
    script = textwrap.dedent(SCRIPT).format(here=here)

    def run(kill):
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-c", script, str(tmp_path), kill]
        return subprocess.run(command, env=environment, check=False).returncode

    assert run("kill") == -signal.SIGKILL
    assert len(list((tmp_path / "done").iterdir())) == 2
    assert run("") == 0
    found = torch.load(tmp_path / "result.pt")
    whole = Solved(made(), RULES, calibrate=calibrate, sequential=True)
    whole.compress()
    expected = state_of(whole)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_rows_and_files_for_activations_go_together(tmp_path):
    class Rows(Scored):
        allocator = RowSparsityAllocator

    how = {"calibrate": calibrate, "sequential": True}
    _, here = Rows(made(), RULES, **how).compress()
    _, there = Rows(made(), RULES, keep=tmp_path, **how).compress()
    assert all(torch.equal(here[n]["weight"], there[n]["weight"]) for n in here)
    assert not list(tmp_path.iterdir())
