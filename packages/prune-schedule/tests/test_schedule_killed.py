"""SIGKILL at any moment, again and again: the end is that of a run that was never killed."""

import os
import subprocess
import sys

import pytest

# One process imports torch and forks the runs that it kills, so that a kill costs no import.
SCRIPT = """
import os, random, signal, sys, time
import torch
from torch import nn
from prune_core import BasicPruner
from prune_toolkit import (
    NormalSparsityAllocator, StraightMetricsCalculator, WeightDataCollector,
)
from prune_schedule import AGPPruner, GradualPruner

KILLS = 16
torch.set_num_threads(1)

class Smallest(BasicPruner):
    def reset_tools(self):
        self.data_collector = WeightDataCollector(self)
        self.metrics_calculator = StraightMetricsCalculator()
        self.sparsity_allocator = NormalSparsityAllocator(self, transform=torch.abs)

def build():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Dropout(0.2), nn.Linear(30, 5))
    return model, torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)

def train(model, optimizer, steps):
    for _ in range(steps):
        optimizer.zero_grad()
        x, y = torch.randn(16, 20), torch.randint(5, (16,))
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()

def rounds(checkpoint):
    model, optimizer = build()
    rules = [{"sparsity": 0.9, "op_types": ["Linear"]}]
    AGPPruner(model, rules, Smallest, 8, optimizer=optimizer, checkpoint=checkpoint).run(
        finetune=lambda model: train(model, optimizer, 20)
    )
    return model

def epochs(checkpoint):
    model, optimizer = build()
    rules = [{"sparsity": 0.9, "end_epoch": 8, "op_types": ["Linear"]}]
    pruner = AGPPruner(
        model, rules, optimizer, pruning_algorithm=Smallest, checkpoint=checkpoint
    )
    pruner.compress()
    for epoch in range(pruner.epoch, 10):
        pruner.update_epoch(epoch)
        train(model, optimizer, 20)
    return model

def steps(checkpoint):
    model, optimizer = build()
    rules = [{"sparsity": 0.9, "end_step": 160, "frequency": 20, "op_types": ["Linear"]}]
    pruner = GradualPruner(
        model, rules, optimizer, pruning_algorithm=Smallest, checkpoint=checkpoint
    )
    pruner.compress()
    while pruner.steps < 180:
        train(model, optimizer, 1)
    return model

run, folder = globals()[sys.argv[1]], sys.argv[2]
random.seed(int(sys.argv[3]))
expected = run(f"{folder}/whole.pt").state_dict()
began = time.perf_counter()
run(f"{folder}/timed.pt")
length = time.perf_counter() - began
checkpoint, state = f"{folder}/killed.pt", f"{folder}/state.pt"
kills, places = 0, set()

def survive():
    '''Run to the end through kills, and compare the end with that of the whole run.'''
    global kills
    spared = kills + KILLS
    while True:
        child = os.fork()
        if not child:
            torch.save(run(checkpoint).state_dict(), state)
            os._exit(0)
        if kills < spared:
            time.sleep(random.uniform(0.0, patience))
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if os.waitstatus_to_exitcode(status) == 0:
            break
        assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL, status
        kills += 1
        if os.path.exists(checkpoint):
            at = torch.load(checkpoint, weights_only=True)["parts"]["schedule"]
            places.add((at["done"], *at["now"].values()))
    found = torch.load(state, weights_only=True)
    assert found.keys() == expected.keys()
    different = [name for name in found if not torch.equal(found[name], expected[name])]
    assert not different, different
    return found

# How far a run gets before it is killed depends on the machine; enough is when kills have met it
# in several places. Where all have come too soon, they come later the next time.
for attempt in range(20):
    patience = length / 3 * (1 + attempt / 2)
    if os.path.exists(checkpoint):
        os.remove(checkpoint)
    found = survive()
    if kills >= 3 and len(places) >= 2:
        break
left = sum(int(value.sum()) for name, value in found.items() if name.endswith("weight_mask"))
print(kills, len(places), left, *sorted(os.listdir(folder)))
"""


@pytest.mark.parametrize("run", ["rounds", "epochs", "steps"])
def test_killed_again_and_again(run, tmp_path):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT, run, str(tmp_path), "1"],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    kills, places, left, *files = done.stdout.split()
    assert int(kills) >= 3
    assert int(places) >= 2  # so that it did go on from several
    assert len(files) == 4, "a killed process has left what it did not finish writing"
    assert int(left) == (600 - 540) + (150 - 135)
