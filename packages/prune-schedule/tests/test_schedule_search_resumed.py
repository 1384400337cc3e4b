"""A search that goes on: what was evaluated is not evaluated again, also after SIGKILL."""

import os
import subprocess
import sys

import pytest
import torch
from small_search import anneal, closeness, net
from torch import nn

from prune_core import ConfigError, PruneError

pytest.importorskip("optuna", reason="searches are kept in Optuna studies")


@pytest.mark.parametrize("where", ["experiment_data_dir", "storage"])
def test_what_was_evaluated_is_not_evaluated_again(where, tmp_path):
    kept = {where: tmp_path if where != "storage" else f"sqlite:///{tmp_path}/study.db"}
    evaluate = closeness([0.2, 0.6, 0.65])
    whole = anneal(evaluator=evaluate).run()
    calls = []

    def stops(model):
        calls.append(1)
        if len(calls) == 7:
            raise KeyboardInterrupt
        return evaluate(model)

    assert not anneal(evaluator=stops, **kept).run().complete

    def counts(model):
        calls.append(1)
        return evaluate(model)

    result = anneal(evaluator=counts, **kept).run()
    assert len(calls) == 7 + 18 - 6
    assert [t["score"] for t in result.trials] == [t["score"] for t in whole.trials]
    assert all(
        torch.equal(mask["weight"], whole.masks[name]["weight"])
        for name, mask in result.masks.items()
    )


def test_optuna_reads_the_study(tmp_path):
    import optuna

    url = f"sqlite:///{tmp_path}/study.db"
    result = anneal(evaluator=closeness([0.2, 0.6, 0.65]), storage=url, study_name="mine").run()
    study = optuna.load_study(study_name="mine", storage=url)
    assert study.best_value == result.score
    assert set(study.best_params) == {"0", "2", "4"}
    assert len(study.trials) == 18
    for trial, made in zip(study.trials, result.trials, strict=True):
        assert trial.duration.total_seconds() == pytest.approx(made["seconds"], abs=1e-5)


OTHERS = {
    "whose seed is 0; here it is 1": lambda: {"seed": 1},
    "whose weights is": lambda: {"model": nn.Sequential(*list(net())[:-1], nn.Linear(30, 10))},
    "whose cool_down_rate is 0.5; here it is 0.6": lambda: {"cool_down_rate": 0.6},
    "whose optimize_mode is 'maximize'": lambda: {"optimize_mode": "minimize"},
}


@pytest.mark.parametrize("said", OTHERS)
def test_a_study_of_another_search_is_refused(said, tmp_path):
    first = {"evaluator": lambda model: 1.0, "experiment_data_dir": tmp_path}
    anneal(**first, cool_down_rate=0.5).run()
    with pytest.raises(ConfigError) as caught:
        anneal(**{**first, "cool_down_rate": 0.5, **OTHERS[said]()}).run()
    assert said in str(caught.value)
    assert "Give another experiment_data_dir" in str(caught.value)


def test_a_folder_for_results_keeps_no_search(tmp_path):
    def search():
        model = net()
        scores = []

        def evaluate(model):
            scores.append(model[0].module.weight.mean().item())
            return scores[-1]

        def finetune(model):
            with torch.no_grad():
                model[0].module.weight.add_(torch.rand(()))

        anneal(model, evaluate=evaluate, finetune=finetune, log_dir=tmp_path).run()
        return scores

    assert search() == search()


@pytest.mark.parametrize("last", [b"no line\n", b'{"op_code": 99}\n'])
def test_a_journal_that_is_damaged(last, tmp_path):
    anneal(evaluator=lambda model: 1.0, cool_down_rate=0.5, experiment_data_dir=tmp_path).run()
    journal = tmp_path / "study.journal"
    journal.write_bytes(journal.read_bytes() + last)
    with pytest.raises(PruneError, match=r"study.journal cannot be read .* delete the file"):
        anneal(evaluator=lambda model: 1.0, cool_down_rate=0.5, experiment_data_dir=tmp_path).run()
    assert journal.read_bytes().endswith(last)


def test_two_places_for_one_study(tmp_path):
    with pytest.raises(ConfigError, match="keep one"):
        anneal(evaluator=len, experiment_data_dir=tmp_path, storage="sqlite://").run()


KILLED = """
import os, random, signal, sys, time, warnings
import numpy as np
import torch
from torch import nn
from prune_core import BasicPruner
from prune_toolkit import (
    NormalSparsityAllocator, StraightMetricsCalculator, WeightDataCollector,
)
from prune_schedule import SimulatedAnnealingPruner
import optuna

torch.set_num_threads(1)

class Smallest(BasicPruner):
    def reset_tools(self):
        self.data_collector = WeightDataCollector(self)
        self.metrics_calculator = StraightMetricsCalculator()
        self.sparsity_allocator = NormalSparsityAllocator(self, transform=torch.abs)

x = torch.randn(64, 20, generator=torch.Generator().manual_seed(1))

def search(folder):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 40), nn.ReLU(), nn.Linear(40, 30), nn.Linear(30, 10))
    dense = model(x).detach()
    evaluations = []
    def evaluate(model):
        evaluations.append(1)
        with open(f"{folder}.calls", "a") as calls:
            calls.write(".")
        return -(model(x) - dense).square().mean().item()
    rules = [{"sparsity": 0.5, "op_types": ["Linear"]}]
    result = SimulatedAnnealingPruner(
        model, rules, evaluate, pruning_algorithm=Smallest, experiment_data_dir=folder
    ).run()
    return {name: masks["weight"] for name, masks in result.masks.items()}

folder = sys.argv[1]
random.seed(2)
expected = search(f"{folder}/whole")
began = time.perf_counter()
search(f"{folder}/timed")
length = time.perf_counter() - began
def survive(attempt):
    kills = 0
    while True:
        child = os.fork()
        if not child:
            torch.save(search(f"{folder}/killed{attempt}"), f"{folder}/masks.pt")
            os._exit(0)
        if kills < 16:
            time.sleep(random.uniform(0.0, length / 2))
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if os.waitstatus_to_exitcode(status) == 0:
            return kills
        kills += 1

# How far a run gets before it is killed depends on the machine, so it may need another attempt.
for attempt in range(20):
    kills = survive(attempt)
    found = torch.load(f"{folder}/masks.pt", weights_only=True)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    if kills >= 2:
        break
print(kills, len(open(f"{folder}/killed{attempt}.calls").read()))
"""


def test_killed_again_and_again(tmp_path):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", KILLED, str(tmp_path)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    kills, calls = map(int, done.stdout.split())
    assert kills >= 2
    assert 18 <= calls <= 18 + kills  # at most the trial that was under way is made again
