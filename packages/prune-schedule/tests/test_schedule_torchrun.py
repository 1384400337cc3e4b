"""Training under torchrun, copied (DDP) or cut (FSDP2) over two processes: one set of masks."""

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
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel
from prune_core import BasicPruner, ConfigError, PruneError
from prune_toolkit import (
    GradientCollector, NormalSparsityAllocator, NormMetricsCalculator, StraightMetricsCalculator,
    WeightDataCollector,
)
from prune_schedule import AGPPruner, GradualPruner

form, folder = sys.argv[1:3]
dist.init_process_group("gloo")
rank, size = dist.get_rank(), dist.get_world_size()

class Weights(BasicPruner):
    def reset_tools(self):
        self.data_collector = WeightDataCollector(self)
        self.metrics_calculator = StraightMetricsCalculator()
        self.sparsity_allocator = NormalSparsityAllocator(self, transform=torch.abs)

class Channels(BasicPruner):
    def reset_tools(self):
        self.data_collector = WeightDataCollector(self, channels=True)
        self.metrics_calculator = NormMetricsCalculator(dim=0, p=1.0)
        self.sparsity_allocator = NormalSparsityAllocator(self, channels=True)

class Gradients(Weights):
    def reset_tools(self):
        super().reset_tools()
        self.data_collector = GradientCollector(self, lambda model: train(1))

torch.manual_seed(0)
net = nn.Sequential(nn.Linear(12, 15), nn.ReLU(), nn.Linear(15, 8))  # 15 rows do not halve evenly
model, x, y = net, torch.randn(32, 12), torch.randint(8, (32,))
mine = slice(rank * 32 // size, (rank + 1) * 32 // size)

def over_processes():
    global model
    if form in ("ddp", "resumed"):
        model = DistributedDataParallel(net)
    elif form == "layer by layer":
        for layer in (net[0], net[2]):
            fully_shard(layer)
        fully_shard(net)
    elif form != "alone":
        fully_shard(net)

def train(steps):
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x[mine]), y[mine]).backward()
        optimizer.step()

def refused(error, said, call):
    try:
        call()
    except error as caught:
        assert said in str(caught), caught
    else:
        raise AssertionError(f"nothing was raised, and not {said!r}")

rules = [{"sparsity": 0.75, "op_types": ["Linear"]}]
kept = {}
if form == "too late":
    over_processes()
    refused(ConfigError, "Make the pruner first, and then call fully_shard()",
            lambda: Weights(net, rules))
elif form == "gradients":
    pruner = Gradients(net, rules)
    over_processes()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    refused(PruneError, "Make the masks before fully_shard()", pruner.compress)
elif form == "checkpoint":
    pruner = GradualPruner(net, rules, Weights, total_iteration=2, checkpoint=f"{folder}/run.pt")
    over_processes()
    refused(PruneError, "torch.distributed.checkpoint", pruner.run)
elif form == "resumed":
    # Stopped after 5 of 14 steps, between two that change masks, and set up anew.
    steps = [{"sparsity": 0.75, "op_types": ["Linear"], "end_step": 12, "frequency": 3}]
    checkpoint = None
    for count in (5, 9):
        torch.manual_seed(0 if checkpoint is None else 1)
        net = nn.Sequential(nn.Linear(12, 15), nn.ReLU(), nn.Linear(15, 8))
        over_processes()
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
        pruner = AGPPruner(net, steps, optimizer, pruning_algorithm=Weights)
        if checkpoint is not None:
            pruner.load_state_dict(checkpoint["pruner"])
        pruner.compress()
        if checkpoint is not None:
            net.load_state_dict(checkpoint["model"])
            optimizer.load_state_dict(checkpoint["optimizer"])
        train(count)
        if rank == 0:  # one process writes, as is usual
            parts = {"model": net, "optimizer": optimizer, "pruner": pruner}
            torch.save({n: each.state_dict() for n, each in parts.items()}, f"{folder}/run.pt")
        dist.barrier()
        checkpoint = torch.load(f"{folder}/run.pt", weights_only=True)
    assert pruner.steps == 14
    kept |= {f"agp {name}": masks["weight"] for name, masks in pruner.masks.items()}
elif form != "shots":
    # A schedule in steps, the last masks of which are read off.
    steps = [{"sparsity": 0.75, "op_types": ["Linear"], "end_step": 12, "frequency": 3}]
    pruner = AGPPruner(net, steps, pruning_algorithm=Weights)
    over_processes()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    pruner.optimizer = optimizer
    pruner.compress()
    train(14)
    assert pruner.steps == 14
    kept |= {f"agp {name}": masks["weight"] for name, masks in pruner.masks.items()}
    seen = net[0].weight  # masked, also where this process has but a part of it
    part = kept["agp 0"].chunk(size)[rank] if form in ("whole", "layer by layer") else kept["agp 0"]
    assert torch.equal(getattr(seen, "_local_tensor", seen) != 0, part)
    pruner.unwrap()  # leaves zeros
    seen = net[0].weight
    assert torch.equal(getattr(seen, "_local_tensor", seen) != 0, part)
    pruner.wrap()
    train(2)
if form in ("alone", "ddp", "shots"):
    # One shot after some training. DDP and the schedule above have had a network of their own.
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(12, 15), nn.ReLU(), nn.Linear(15, 8))
    shot = Channels(net, rules)
    model = net
    over_processes()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    train(4)
    shot.compress()
    train(2)
    kept |= {f"shot {name}": masks["weight"] for name, masks in shot.masks.items()}
if kept:
    torch.save(kept, f"{folder}/{rank}.pt")
dist.destroy_process_group()
# While an interpreter ends, a thread of gloo may still ask for it, and then the process aborts.
sys.stdout.flush()
os._exit(0)
"""


def torchrun(form, processes, folder):
    folder.mkdir(exist_ok=True)
    script = folder / "train.py"
    script.write_text(SCRIPT)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    done = subprocess.run(
        [*launch, "--nproc-per-node", str(processes), str(script), form, str(folder)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return [torch.load(path, weights_only=True) for path in sorted(folder.glob("[01].pt"))]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    (masks,) = torchrun("alone", 1, tmp_path_factory.mktemp("alone"))
    assert int(masks["agp 0"].sum()) == 12 * 15 // 4
    assert int(masks["shot 0"].any(1).sum()) == 15 - 11
    return masks


SHARDED = pytest.mark.skipif(
    torch.__version__ < "2.9",  # a TorchVersion, which compares as a version
    reason="fully_shard() of torch 2.8 sums gradients over gloo, and does not average them: "
    "it trains to other weights, pruned or not",
)


@pytest.mark.parametrize(
    "form",
    [
        "ddp",
        "resumed",
        pytest.param("whole", marks=SHARDED),
        pytest.param("layer by layer", marks=SHARDED),
        "shots",
    ],
)
def test_two_processes_make_the_masks_of_one(form, alone, tmp_path):
    both = torchrun(form, 2, tmp_path)
    assert len(both) == 2
    for masks in both:
        assert masks
        for name, mask in masks.items():
            assert torch.equal(mask, alone[name]), name


@pytest.mark.parametrize("form", ["too late", "gradients", "checkpoint"])
def test_what_cannot_be_is_refused_with_the_way_out(form, tmp_path):
    torchrun(form, 2, tmp_path)
