"""Two processes make the masks that one makes, also when both are stopped and start again."""

import os
import subprocess
import sys

import pytest
import torch

SCRIPT = """
import os, sys
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from prune_core import BasicPruner
from prune_toolkit import (
    GradientCollector, NormalSparsityAllocator, StraightMetricsCalculator, WeightDataCollector,
)
from prune_schedule import AGPPruner, SimulatedAnnealingPruner

form, rank, size, folder, stop_after = sys.argv[1], *map(int, sys.argv[2:4]), *sys.argv[4:6]
meeting = f"file://{folder}/meet-{stop_after}"
dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=size)

class Smallest(BasicPruner):
    def reset_tools(self):
        self.data_collector = WeightDataCollector(self)
        self.metrics_calculator = StraightMetricsCalculator()
        self.sparsity_allocator = NormalSparsityAllocator(self, transform=torch.abs)

class Gradients(Smallest):
    def reset_tools(self):
        super().reset_tools()
        self.data_collector = GradientCollector(self, lambda model: train(1, optimizer=None))

torch.manual_seed(0)
net = nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 4))
model = DistributedDataParallel(net)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
x, y = torch.randn(32, 12), torch.randint(4, (32,))
mine = slice(rank * 32 // size, (rank + 1) * 32 // size)

def train(steps, optimizer=optimizer):
    for _ in range(steps):
        model.zero_grad()
        nn.functional.cross_entropy(model(x[mine]), y[mine]).backward()
        if optimizer is not None:
            optimizer.step()

rules = [{"sparsity": 0.75, "op_types": ["Linear"]}]
checkpoint = f"{folder}/run.pt"
if form == "rounds":
    def finetune(_):
        train(4)
        if str(len(pruner.trials)) == stop_after:
            os._exit(0)
    pruner = AGPPruner(net, rules, Smallest, 4, optimizer=optimizer, checkpoint=checkpoint)
    pruner.run(finetune)
elif form == "data":
    pruner = AGPPruner(net, rules, Gradients, 3)
    pruner.run(lambda _: train(2))
elif form == "search":
    def evaluate(_):
        with torch.no_grad():  # each process sees other data
            return -nn.functional.cross_entropy(net(x[mine]), y[mine]).item()
    pruner = SimulatedAnnealingPruner(net, rules, evaluate, pruning_algorithm=Smallest)
    pruner.run()
else:
    rules[0] |= {"end_epoch": 5}
    pruner = AGPPruner(
        model, rules, optimizer, pruning_algorithm=Smallest, checkpoint=checkpoint
    )
    pruner.compress()
    for epoch in range(pruner.epoch, 6):
        pruner.update_epoch(epoch)
        train(4)
        if str(epoch) == stop_after:
            os._exit(0)
state = {name.removeprefix("module."): masks for name, masks in pruner.masks.items()}
torch.save(state, f"{folder}/{rank}.pt")
dist.destroy_process_group()
# While an interpreter ends, a thread of gloo may still ask for it, and then the process aborts.
sys.stdout.flush()
os._exit(0)
"""


def train(form, size, folder, stop_after="never"):
    folder.mkdir(exist_ok=True)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT, form, str(rank), str(size), str(folder), stop_after],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(size)
    ]
    for process in processes:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    return [torch.load(p, weights_only=True) for p in sorted(folder.glob("[01].pt"))]


@pytest.mark.parametrize("form", ["rounds", "epochs", "data"])
def test_all_processes_agree_with_one(form, tmp_path):
    (alone,) = train(form, 1, tmp_path / "alone")
    if form != "data":
        assert train(form, 2, tmp_path / "together", stop_after="2") == []
    both = train(form, 2, tmp_path / "together")
    assert len(both) == 2
    for masks in both:
        assert masks.keys() == alone.keys()
        for name, tensors in masks.items():
            for tensor, mask in tensors.items():
                assert torch.equal(mask, alone[name][tensor])
    assert int(alone["0"]["weight"].sum()) == 12 * 16 // 4


def test_processes_agree_on_what_a_search_has_found(tmp_path):
    first, second = train("search", 2, tmp_path)
    for name, tensors in first.items():
        assert torch.equal(tensors["weight"], second[name]["weight"])
    left = sum(int(tensors["weight"].sum()) for tensors in first.values())
    assert 64 <= left <= 66  # a quarter of 256, and what rounding leaves in two layers
