"""What a user sees of a search: progress, tables, files and pictures."""

import csv
import json
import logging
import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from prune_core import ConfigError, MissingDependencyError, PruneWarning
from prune_schedule import (
    SensitivityPruner,
    SimulatedAnnealingPruner,
    plot_history,
    plot_sensitivity,
    plot_sparsities,
)

RULES = [{"sparsity": 0.5, "op_types": ["Linear"]}]


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8))


@pytest.fixture
def result():
    """Five trials, the second of which fails."""
    scores = iter([0.5, float("nan"), 0.4, 0.9, 0.7])
    pruner = SimulatedAnnealingPruner(
        net(),
        RULES,
        lambda model: next(scores),
        pruning_algorithm="smallest",
        cool_down_rate=0.5,
    )
    with pytest.warns(PruneWarning, match="the score is nan"):
        return pruner.run()


# --- data -------------------------------------------------------------------------------------


def test_trials_are_a_table(result):
    pandas = pytest.importorskip("pandas", reason="pip install pandas")
    table = pandas.DataFrame(result.trials)
    assert table["trial"].tolist() == [0, 1, 2, 3, 4]
    assert table["score"].isna().tolist() == [False, True, False, False, False]
    assert table["score"].max() == 0.9
    flat = pandas.DataFrame(result.trials.flat)
    assert flat["sparsities.0"].between(0, 1).all()
    assert flat["sparsities.2"].tolist()[0] == 0.5


def test_trials_are_files(result, tmp_path):
    result.trials.save(tmp_path / "trials.json")
    assert json.loads((tmp_path / "trials.json").read_text()) == result.trials
    result.trials.save(tmp_path / "trials.csv")
    with (tmp_path / "trials.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["score"] for row in rows] == ["0.5", "", "0.4", "0.9", "0.7"]
    assert float(rows[3]["sparsities.2"]) == result.trials[3]["sparsities"]["2"]


# --- pictures ---------------------------------------------------------------------------------


@pytest.fixture
def pyplot(monkeypatch):
    matplotlib = pytest.importorskip("matplotlib", reason="pip install 'prune-schedule[plot]'")
    matplotlib.use("Agg")
    from matplotlib import pyplot

    yield pyplot
    pyplot.close("all")


def drawn(ax):
    """Return the points of each line by its name."""
    return {
        line.get_label(): list(
            zip(line.get_xdata().tolist(), line.get_ydata().tolist(), strict=True)
        )
        if hasattr(line.get_xdata(), "tolist")
        else list(zip(line.get_xdata(), line.get_ydata(), strict=True))
        for line in ax.lines
    }


def test_a_history_is_drawn(pyplot, result, tmp_path):
    ax = plot_history(result.trials)
    lines = drawn(ax)
    assert lines["trial"] == [(0, 0.5), (2, 0.4), (3, 0.9), (4, 0.7)]
    assert lines["best so far"] == [(0, 0.5), (2, 0.5), (3, 0.9), (4, 0.9)]
    assert [x for x, _ in lines["failed"]] == [1]
    ax.figure.savefig(tmp_path / "history.svg")
    assert "<svg" in (tmp_path / "history.svg").read_text()


def test_a_history_of_losses_falls(pyplot, result):
    best = drawn(plot_history(result.trials, "minimize"))["best so far"]
    assert [score for _, score in best] == [0.5, 0.4, 0.4, 0.4]


def test_sparsities_are_drawn_where_the_user_wants(pyplot, result):
    figure, axes = pyplot.subplots(2)
    assert plot_sparsities(result.sparsities, ax=axes[1]) is axes[1]
    assert [bar.get_width() for bar in axes[1].patches] == list(result.sparsities.values())
    assert [label.get_text() for label in axes[1].get_yticklabels()] == ["0", "2"]
    assert pyplot.get_fignums() == [figure.number]


def test_sensitivity_is_drawn(pyplot):
    pruner = SensitivityPruner(
        net(),
        RULES,
        lambda model: 1 - model[2].weight_mask.logical_not().float().mean().item(),
        pruning_algorithm="smallest",
        sparsity_per_iter=0.25,
        acc_drop_threshold=0.35,
    )
    pruner.run()
    lines = drawn(plot_sensitivity(pruner.curves))
    assert [sparsity for sparsity, _ in lines["0"]] == [tenth / 10 for tenth in range(1, 10)]
    assert {score for _, score in lines["0"]} == {1.0}
    # The last point is the one that was too much.
    assert [sparsity for sparsity, _ in lines["2"]] == [0.1, 0.2, 0.3, 0.4]
    assert plot_sensitivity(pruner.curves, 2).get_legend_handles_labels()[1] == ["0", "2"]
    with pytest.raises(ConfigError, match="number is 3; the curves have the rounds 1, 2"):
        plot_sensitivity(pruner.curves, 3)


def test_nothing_to_draw(pyplot):
    with pytest.raises(ConfigError, match="None of the trials has a score"):
        plot_history([{"trial": 0, "score": None}])
    with pytest.raises(ConfigError, match="no layer"):
        plot_sparsities({})


def test_without_matplotlib(monkeypatch, result):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingDependencyError, match=r"prune-schedule\[plot\]"):
        plot_history(result.trials)


# --- progress ---------------------------------------------------------------------------------


def search(scores):
    SimulatedAnnealingPruner(
        net(),
        RULES,
        lambda model: next(scores),
        pruning_algorithm="smallest",
        cool_down_rate=0.5,
        study_name="mine",
    ).run()


def test_a_log_says_what_a_search_is_for_and_what_came_of_it(caplog):
    search(iter([0.5, 0.25, 0.75, 0.1, 0.2]))
    begun, ended = caplog.messages
    assert begun == "mine: 5 trials, to prune 50.0% of the weights of 2 layers"
    assert ended.startswith("mine: 5 trials in ")
    assert ended.endswith(", best score 0.75")


def test_a_log_that_wants_everything_gets_a_line_for_each_trial(caplog):
    scores = iter([0.5, 0.25, 0.75, 0.1, 0.2])
    with caplog.at_level(logging.DEBUG, "prune"):
        search(scores)
    lines = [line for line in caplog.messages if line.startswith("mine: trial")]
    assert len(lines) == 5
    # The first two are asked for together, so of the first alone nothing is the best yet.
    assert lines[0].startswith("mine: trial 1 of 5, sparsity 50.0%, score 0.5, best none, about ")
    assert "score 0.25, best 0.5" in lines[1]
    assert lines[3].startswith("mine: trial 4 of 5, sparsity")
    assert "score 0.1, best 0.75" in lines[3]
    assert all(line.endswith("s left") for line in lines)


SCRIPT = """
import time
import torch
from torch import nn
from prune_core import BasicPruner
from prune_toolkit import (
    NormalSparsityAllocator, StraightMetricsCalculator, WeightDataCollector,
)
from prune_schedule import SimulatedAnnealingPruner

class Smallest(BasicPruner):
    def reset_tools(self):
        self.data_collector = WeightDataCollector(self)
        self.metrics_calculator = StraightMetricsCalculator()
        self.sparsity_allocator = NormalSparsityAllocator(self, transform=torch.abs)

def evaluate(model):
    time.sleep(0.6)
    print("a line of the user's own")
    return len(pruner.trials) / 8

model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8))
pruner = SimulatedAnnealingPruner(
    model, [{"sparsity": 0.5, "op_types": ["Linear"]}], evaluate, pruning_algorithm=Smallest,
    cool_down_rate=0.5,
)
pruner.run()
"""


def test_a_terminal_gets_a_bar():
    pty = pytest.importorskip("pty", reason="no terminals to imitate on this system")
    pytest.importorskip("rich", reason="without rich there is no bar")
    ours, theirs = pty.openpty()
    search = subprocess.Popen(
        [sys.executable, "-c", SCRIPT],
        env=os.environ | {"OMP_NUM_THREADS": "1", "TERM": "xterm", "COLUMNS": "160"},
        stderr=theirs,
    )
    os.close(theirs)
    shown = b""
    while True:
        try:
            part = os.read(ours, 4096)
        except OSError:  # what a terminal without a process behind it says on Linux
            break
        if not part:
            break
        shown += part
    os.close(ours)
    assert search.wait(60) == 0, shown
    assert b"SimulatedAnnealingPruner" in shown
    assert b"4/5" in shown
    assert b"sparsity" in shown
    assert b"best 0.375" in shown
    assert b"s left" in shown
    # The bar goes, and what came of the search stays.
    *_, last = shown.splitlines()
    assert last.endswith(b"best score 0.5")


def test_a_file_gets_lines_without_any_configuration():
    search = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    begun, *lines, ended = search.stderr.splitlines()
    assert "prune: SimulatedAnnealingPruner: 5 trials, to prune 50.0%" in begun
    assert any("trial" in line and "of 5, sparsity" in line for line in lines), search.stderr
    assert "5 trials in" in ended
