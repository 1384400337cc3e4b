"""Evaluations that hang, and Ctrl-C: the search has an end, and the model stays whole."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest
import torch
from torch import nn

from prune_core import PruneWarning
from prune_core.masking import PrunerModuleWrapper
from prune_schedule import SimulatedAnnealingPruner
from prune_schedule.run.evaluation import score_of
from prune_schedule.run.interruption import undisturbed

RULES = [{"sparsity": 0.5, "op_types": ["Linear"]}]
FEW = {"pruning_algorithm": "smallest", "cool_down_rate": 0.5}  # 5 trials


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8))


def test_a_time_limit_is_no_exception_that_an_evaluator_catches():
    tries = []

    def stubborn(model):
        while True:
            try:
                tries.append(1)
                time.sleep(60)
            except Exception:
                continue

    score = score_of(stubborn, net(), 0.1)
    with pytest.warns(PruneWarning, match="no result after 0.1 s"):
        score.warn()
    assert (score.value, score.problem) == (None, "TimeoutError: no result after 0.1 s")
    assert len(tries) == 1


def test_a_time_limit_comes_again():
    caught = []

    def deaf(model):
        while True:
            try:
                time.sleep(60)
            except BaseException as error:
                caught.append(error)
                if len(caught) == 2:
                    raise

    assert "no result after 0.1 s" in score_of(deaf, net(), 0.1).problem


def test_a_signal_of_the_user_is_theirs_again():
    def mine(*_):
        pass

    before = signal.signal(signal.SIGALRM, mine)
    try:
        assert score_of(lambda model: 1.0, net(), 60).value == 1.0
        assert signal.getsignal(signal.SIGALRM) is mine
        assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    finally:
        signal.signal(signal.SIGALRM, before)


def test_ctrl_c_is_heard_when_a_block_has_ended(ctrl_c):
    done = []
    with pytest.raises(KeyboardInterrupt), undisturbed():  # noqa: PT012
        ctrl_c()
        time.sleep(0.01)
        done.append(1)
    assert done
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_wherever_an_evaluation_is_interrupted_the_model_stays_whole():
    chance = random.Random(0)
    model = net()
    x = torch.randn(2, 8)
    weights = dict(model.named_parameters())
    pruner = SimulatedAnnealingPruner(model, RULES, lambda model: 1.0, **FEW)
    pruner.run()

    def endless(model):
        while True:
            model(x)

    for _ in range(300):
        # Down to times that are over before the evaluation has begun.
        score = score_of(endless, model, chance.choice([1e-6, chance.uniform(0.0005, 0.003)]))
        assert "TimeoutError" in score.problem
        assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
        for name in ("0", "2"):
            wrapper = model.get_submodule(name)
            assert isinstance(wrapper, PrunerModuleWrapper)
            assert wrapper.module._parameters["weight"] is weights[f"{name}.weight"]
            assert wrapper.module._parameters["bias"] is weights[f"{name}.bias"]


def test_where_ctrl_c_is_ignored_it_stays_so():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with undisturbed():
            os.kill(os.getpid(), signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


SCRIPT = """
import signal, sys, time, warnings
# Tests may run in the background, where a process ignores Ctrl-C from its start.
signal.signal(signal.SIGINT, signal.default_int_handler)
import torch
from torch import nn
from prune_core import BasicPruner
from prune_core.masking import PrunerModuleWrapper
from prune_toolkit import (
    NormalSparsityAllocator, StraightMetricsCalculator, WeightDataCollector,
)
from prune_schedule import SimulatedAnnealingPruner

class Smallest(BasicPruner):
    def reset_tools(self):
        self.data_collector = WeightDataCollector(self)
        self.metrics_calculator = StraightMetricsCalculator()
        self.sparsity_allocator = NormalSparsityAllocator(self, transform=torch.abs)

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8))
weights = [parameter.detach().clone() for parameter in model.parameters()]
scores = [0.5, 0.8, 0.3]

def evaluate(model):
    if len(pruner.trials) == len(scores):
        print("now", flush=True)
        time.sleep(600)
    return scores[len(pruner.trials)]

pruner = SimulatedAnnealingPruner(
    model, [{"sparsity": 0.5, "op_types": ["Linear"]}], evaluate, pruning_algorithm=Smallest,
    **({"experiment_data_dir": sys.argv[1]} if len(sys.argv) > 1 else {}),
)
result = pruner.run()
assert not result.complete
assert result.score == 0.8
assert [trial["score"] for trial in result.trials] == scores
assert isinstance(model[0], PrunerModuleWrapper)
masked = sum(int((~masks["weight"]).sum()) for masks in result.masks.values())
assert 62 <= masked <= 64, masked
assert all(torch.equal(a, b) for a, b in zip(weights, model.parameters(), strict=True))
print("ended")
"""


@pytest.mark.parametrize("kept", [True, False])
def test_ctrl_c_in_a_terminal(kept, tmp_path):
    if kept:
        pytest.importorskip("optuna", reason="searches are kept in Optuna studies")
    search = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", SCRIPT, *([str(tmp_path)] if kept else [])],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert search.stdout.readline() == "now\n", search.stderr.read()
    search.send_signal(signal.SIGINT)
    out, errors = search.communicate(timeout=60)
    assert search.returncode == 0, errors
    assert out == "ended\n"
    assert "stopped after 3 of 18 trials" in errors
    if kept:
        assert (tmp_path / "best_result" / "masks.pth").exists()
