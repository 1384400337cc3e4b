"""Masks made by two processes, each with its own half of the data."""

import os
import subprocess
import sys

import pytest
import torch
from torch import distributed

WORKER = """
import os, sys
import torch
from torch import distributed, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from prune_filter import *

out, rank, size = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
torch.set_num_threads(1)
if size > 1:
    store = distributed.FileStore(out + "/store", size)
    distributed.init_process_group("gloo", store=store, rank=rank, world_size=size)

def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 12, 3), nn.ReLU(), nn.Conv2d(12, 8, 3), nn.Flatten(), nn.Linear(128, 10)
    )

torch.manual_seed(1)
everything = [(torch.randn(6, 3, 8, 8), torch.randint(10, (6,))) for _ in range(5)]
mine = everything[rank::size]          # three batches here, two there
RULES = [{"sparsity": 0.5, "op_types": ["Conv2d", "Linear"]}]

def parallel(model):
    return DistributedDataParallel(model) if size > 1 else model

def backward(model):
    model = parallel(model)
    for inputs, labels in mine[:2]:    # DDP wants as many steps of each process
        F.cross_entropy(model(inputs), labels).backward()

def forward(model):
    for inputs, _ in mine:
        model(inputs)

def losses(model):
    for inputs, labels in mine:
        yield F.cross_entropy(model(inputs), labels)

if size == 1:
    # What the two processes see with two batches each.
    mine_of_two = everything[0:4]
    def backward(model):
        for inputs, labels in mine_of_two:
            F.cross_entropy(model(inputs), labels).backward()

results = {}
for name, pruner in {
    "apoz": lambda: ActivationAPoZRankPruner(network(), RULES, calibrate=forward),
    "mean": lambda: ActivationMeanRankPruner(network(), RULES, calibrate=forward),
    "taylor": lambda: TaylorFOWeightPruner(network(), RULES, calibrate=backward),
    "group_taylor": lambda: GroupTaylorPruner(network(), RULES, calibrate=backward),
    "global_taylor": lambda: TaylorFOWeightPruner(
        network(), RULES, calibrate=backward, mode="global"
    ),
    "snip": lambda: SNIPPruner(network(), RULES, calibrate=backward),
    "movement": lambda: MovementPruner(network(), RULES, calibrate=backward),
    "grasp": lambda: GraSPPruner(network(), RULES, calibrate=losses),
    "l1": lambda: L1NormPruner(network(), RULES),
}.items():
    model, masks = pruner().compress()
    results[name] = {m: tensors["weight"] for m, tensors in masks.items()}

# A process that has nothing at all takes part all the same.
def only_first(model):
    if rank == 0:
        model(everything[0][0])
pruner = ActivationMeanRankPruner(network(), RULES, calibrate=only_first)
results["only_first"] = {m: t["weight"] for m, t in pruner.compress()[1].items()}

# Chance is the same everywhere, though every process has its own seed.
torch.manual_seed(rank)
pruner = RandomPruner(network(), RULES)
results["random"] = {m: t["weight"] for m, t in pruner.compress()[1].items()}
def nowhere(model):
    pass
try:
    ActivationMeanRankPruner(network(), RULES, calibrate=nowhere).compress()
except Exception as error:
    results["error"] = {"": torch.tensor([len(str(error))])}
torch.save(results, f"{out}/{rank}-of-{size}.pt")
if size > 1:
    distributed.destroy_process_group()
# While an interpreter ends, a thread of gloo may still ask for it, and then the process aborts.
sys.stdout.flush()
os._exit(0)
"""


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    if not (distributed.is_available() and distributed.is_gloo_available()):
        pytest.skip("torch was built without gloo")
    out = tmp_path_factory.mktemp("masks")
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(out), str(rank), str(size)],
            env=os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank, size in [(0, 2), (1, 2), (0, 1)]
    ]
    for worker in workers:
        _, said = worker.communicate(timeout=120)
        assert worker.returncode == 0, said
    return {
        case: torch.load(out / f"{case}.pt", weights_only=True)
        for case in ("0-of-2", "1-of-2", "0-of-1")
    }


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[m], other[m]) for m in one)


GATHERED = ("apoz", "mean", "taylor", "group_taylor", "global_taylor", "snip", "movement", "grasp")
NAMES = (*GATHERED, "l1", "only_first", "random", "error")


@pytest.mark.parametrize("name", NAMES)
def test_both_processes_arrive_at_the_same_masks(results, name):
    assert equal(results["0-of-2"][name], results["1-of-2"][name])


@pytest.mark.parametrize("name", [name for name in NAMES if name != "random"])
def test_two_processes_arrive_where_one_does_that_sees_all_data(results, name):
    assert equal(results["0-of-2"][name], results["0-of-1"][name])
