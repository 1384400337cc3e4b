"""SIGKILL in the middle of searches that train: the end is that of a run never killed."""

import os
import subprocess
import sys

import pytest

pytest.importorskip("optuna", reason="experiment_data_dir keeps an Optuna study")

# One process imports torch and forks the runs that it kills, so that a kill costs no import.
SCRIPT = """
import os, random, signal, sys, time
import torch, optuna
from torch import nn
from prune_core import BasicPruner
from prune_toolkit import (
    DependencyAwareAllocator, NormMetricsCalculator, WeightDataCollector,
)
from prune_schedule import AMCPruner, AutoCompressPruner, NetAdaptPruner, SimulatedAnnealingPruner

torch.set_num_threads(1)
x = torch.rand(8, 3, 8, 8, generator=torch.Generator().manual_seed(1))
RULES = [{"op_types": ["Conv2d"]}]

class Units(BasicPruner):
    modes = ("dependency_aware",)
    def __init__(self, model, config_list, mode="dependency_aware", dummy_input=None):
        self.dummy_input = dummy_input
        super().__init__(model, config_list)
    def reset_tools(self):
        self.data_collector = WeightDataCollector(self, channels=True)
        self.metrics_calculator = NormMetricsCalculator(dim=0, p=1.0)
        self.sparsity_allocator = DependencyAwareAllocator(self, self.dummy_input)

def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 12, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 4),
    )

def train(model):
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for _ in range(3):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), torch.randint(4, (8,))).backward()
        optimizer.step()

def evaluate(model):
    model.eval()
    with torch.no_grad():
        return model(x).std().item()

COMMON = {
    "pruning_algorithm": Units, "target": {"flops": 0.5}, "dummy_input": x, "evaluate": evaluate,
}

def netadapt(model, **kept):
    return NetAdaptPruner(
        model, RULES, finetune=train, sparsity_per_iteration=0.1, **COMMON, **kept
    )

def autocompress(model, **kept):
    return AutoCompressPruner(
        model, RULES, finetune=train, num_iterations=2, cool_down_rate=0.6,
        admm_num_iterations=2, admm_training_epochs=1, **COMMON, **kept,
    )

def amc(model, **kept):
    return AMCPruner(
        model, RULES, finetune=train, train_episode=16, warmup=4, hidden1=32, hidden2=32,
        **COMMON, **kept,
    )

def search(kept):
    model = net()
    globals()[sys.argv[1]](model, **{sys.argv[2]: kept}).run()
    return model.state_dict()

folder = sys.argv[3]
random.seed(3)
expected = search(f"{folder}/whole")
began = time.perf_counter()
search(f"{folder}/timed")
length = time.perf_counter() - began
kills = 0
while True:
    child = os.fork()
    if not child:
        torch.save(search(f"{folder}/killed"), f"{folder}/state.pt")
        os._exit(0)
    if kills < 8:
        time.sleep(random.uniform(0.0, length / 4))
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if os.waitstatus_to_exitcode(status) == 0:
        break
    assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL, status
    kills += 1
found = torch.load(f"{folder}/state.pt", weights_only=True)
assert found.keys() == expected.keys()
different = [name for name in found if not torch.equal(found[name], expected[name])]
assert not different, different
print(kills)
"""


@pytest.mark.parametrize(
    ("search", "kept"),
    [
        ("netadapt", "experiment_data_dir"),
        ("netadapt", "checkpoint"),
        ("autocompress", "experiment_data_dir"),
        ("amc", "experiment_data_dir"),
    ],
)
def test_killed_again_and_again(search, kept, tmp_path):
    if search == "amc":
        pytest.importorskip("stable_baselines3", reason="AMC's agent is that of stable-baselines3")
    script = SCRIPT if search == "amc" else SCRIPT.replace("AMCPruner, ", "", 1)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, search, kept, str(tmp_path)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 3
