"""What takes a while is told, to plugins and to people, and nobody has to configure anything."""

import logging
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from prune_core import PluginWarning, hookimpl
from prune_core.progress import Task, note, task, view
from prune_core.registry import registered


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    for module in (task, view):
        monkeypatch.setattr(module, "monotonic", clock)
    monkeypatch.setattr(view, "_next_line", 0.0)
    monkeypatch.setattr(task, "_noted", {})
    return clock


@pytest.fixture
def lines(caplog):
    caplog.set_level(logging.INFO, "prune")
    return caplog.messages


# --- lines ------------------------------------------------------------------------------------


def test_what_is_announced_says_what_it_is_for_and_what_came_of_it(clock, lines, caplog):
    with Task("Search", 3, "trial", "to prune half", announce=True) as search:
        for score in (0.1, 0.9, 0.5):
            search.advance(f"score {score}")
        search.said = "best 0.9"
    assert caplog.messages == [
        "Search: 3 trials, to prune half",
        "Search: 3 trials in 0.0 s, best 0.9",
    ]


def test_what_is_over_in_a_moment_is_not_worth_a_word(clock, caplog):
    with Task("Calibration", None, "batch") as calibration:
        clock.now += 1.9
        calibration.advance()
    assert not caplog.messages


def test_what_takes_longer_is_told_now_and_then(clock, caplog, lines):
    with Task("Calibration", None, "batch") as calibration:
        for _ in range(20):
            clock.now += 0.5
            calibration.advance()
    assert caplog.messages == [
        *(f"Calibration: batch {n}" for n in (5, 9, 13, 17)),
        "Calibration: 20 batches in 10 s",
    ]


def test_the_longer_it_takes_the_fewer_are_the_lines(clock, caplog, lines):
    with Task("Search", 10_000, "trial") as search:
        for _ in range(10_000):
            clock.now += 1.0
            search.advance()
    assert len(caplog.messages) < 250  # in 2 hours 47 minutes
    assert caplog.messages[-2].startswith("Search: trial 99")
    assert caplog.messages[-1] == "Search: 10000 trials in 2 h 46 min"


def test_steps_that_take_long_get_a_line_each_and_the_time_that_is_left(clock, caplog, lines):
    with Task("AGP", 3, "round") as agp:
        for number in range(3):
            clock.now += 60.0
            agp.advance(f"sparsity {number}")
    assert caplog.messages == [
        "AGP: round 1 of 3, sparsity 0, about 2 min 0 s left",
        "AGP: round 2 of 3, sparsity 1, about 1 min 0 s left",
        "AGP: 3 rounds in 3 min 0 s, sparsity 2",
    ]


def test_a_step_that_is_being_made_is_the_next_one(clock, caplog, lines):
    with Task("AGP", 3, "round") as agp:
        agp.advance()
        clock.now += 60.0
        agp.say("fine-tuning")
        clock.now += 60.0
    assert caplog.messages[0] == "AGP: round 2 of 3, fine-tuning, about 2 min 0 s left"


def test_steps_of_an_earlier_start_say_nothing_about_the_time_that_is_left(clock, caplog, lines):
    with Task("AGP", 4, "round") as agp:
        agp.advance(replayed=True)
        agp.advance(replayed=True)
        clock.now += 60.0
        agp.advance()
        clock.now += 60.0
    assert caplog.messages[0] == "AGP: round 3 of 4, about 1 min 0 s left"


def test_a_part_says_where_in_the_whole_it_is(clock, caplog, lines):
    with (
        Task("AutoCompress", 2, "round", announce=True) as whole,
        Task("Annealing", 18, "trial", "to prune half", announce=True) as part,
    ):
        assert part.parent is whole
        clock.now += 5.0
        part.advance("score 0.5")
    assert caplog.messages == [
        "AutoCompress: 2 rounds",
        "AutoCompress, round 1 of 2 · Annealing: trial 1 of 18, score 0.5, about 1 min 25 s left",
        "AutoCompress, round 1 of 2 · Annealing: 1 trial in 5.0 s, score 0.5",
        "AutoCompress: 0 rounds in 5.0 s",
    ]


def test_what_is_stopped_is_a_warning(clock, caplog):
    with pytest.raises(KeyboardInterrupt), Task("Search", 5, "trial", announce=True) as search:  # noqa: PT012
        search.advance()
        raise KeyboardInterrupt
    assert caplog.record_tuples[-1][1:] == (
        logging.WARNING,
        "Search: stopped after 1 of 5 trials in 0.0 s",
    )
    assert search.state == "stopped"


def test_a_note_is_made_now_and_then_and_always_at_the_end(clock, caplog, lines):
    for step in range(10):
        clock.now += 0.5
        note("AGP", f"step {step}")
    note("AGP", "done", always=True)
    assert caplog.messages == [*(f"AGP: step {n}" for n in (0, 4, 8)), "AGP: done"]


def test_at_the_level_debug_each_step_is_a_line(clock, caplog):
    caplog.set_level(logging.DEBUG, "prune")
    with Task("Search", 3, "trial") as search:
        search.advance()
        search.advance()
    assert caplog.messages == [
        "Search: trial 1 of 3, about 0.0 s left",
        "Search: trial 2 of 3, about 0.0 s left",
    ]


# --- plugins ----------------------------------------------------------------------------------


def test_a_plugin_hears_of_each_step():
    heard = []

    @hookimpl
    def prune_progress(task):
        heard.append((task.title, task.state, task.done, task.said))

    with registered(SimpleNamespace(prune_progress=prune_progress), "acme"), Task("A", 1) as a:
        a.advance("half")
    assert heard == [("A", "begun", 0, ""), ("A", "running", 1, "half"), ("A", "ended", 1, "half")]


def test_a_plugin_that_fails_costs_a_warning():
    @hookimpl
    def prune_progress(task):
        raise OSError("no disk")

    plugin = registered(SimpleNamespace(prune_progress=prune_progress), "acme")
    with plugin, pytest.warns(PluginWarning, match="acme.* failed in prune_progress: OSError"):  # noqa: SIM117
        with Task("A", 1) as a:
            a.advance()
    assert a.done == 1


# --- without configuration, and with ----------------------------------------------------------

SCRIPT = """
import logging, sys
{before}
from prune_core.progress import Task
with Task("Search", 2, "trial", announce=True) as search:
    search.advance()
    search.advance("score 1")
"""


def stderr(before="", **variables):
    environment = {k: v for k, v in os.environ.items() if k != "PRUNE_PROGRESS"}
    return subprocess.run(
        [sys.executable, "-c", SCRIPT.format(before=before)],
        capture_output=True,
        text=True,
        check=True,
        env=environment | variables,
    ).stderr.splitlines()


def test_without_configuration_it_is_seen():
    begun, ended = stderr()
    assert begun.endswith(" prune: Search: 2 trials")
    assert ended.endswith(" s, score 1")


@pytest.mark.parametrize("level", ["INFO", "WARNING"])
def test_with_configuration_it_is_seen_once_and_as_configured(level):
    lines = stderr(f"logging.basicConfig(level=logging.{level}, format='%(message)s!')")
    assert len(lines) == 2
    assert lines[0] == "Search: 2 trials!"


def test_it_can_be_silenced():
    assert stderr(PRUNE_PROGRESS="0") == []
    assert stderr("logging.getLogger('prune').setLevel(logging.WARNING)") == []


NOTEBOOK = """
import sys, types
shown = []
class Handle:
    def update(self, data, raw): shown.append(data["text/plain"])
IPython = types.ModuleType("IPython")
IPython.get_ipython = lambda: types.SimpleNamespace(kernel=object())
IPython.display = types.ModuleType("IPython.display")
IPython.display.display = lambda data, raw, display_id: Handle()
sys.modules |= {"IPython": IPython, "IPython.display": IPython.display}
import time
from prune_core.progress import Task, view
view.PATIENCE = view.REDRAW = 0.0
with Task("Search", 3, "trial") as search:
    for number in range(3):
        time.sleep(0.01)
        search.advance(f"score {number}")
assert shown[0].startswith("Search: trial 1 of 3, score 0, about "), shown
assert shown[2].startswith("Search: trial 3 of 3, score 2"), shown
assert shown[-1] == "", shown
"""


def test_a_notebook_gets_a_line_that_is_renewed():
    ran = subprocess.run(
        [sys.executable, "-c", NOTEBOOK], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr


TERMINAL = """
import time
from prune_core.progress import Task, view
view.PATIENCE = 0.0
with Task("Search", 4, "trial") as search:
    for number in range(4):
        time.sleep(0.15)
        print("said meanwhile")
        search.advance(f"score {number}")
"""


@pytest.mark.parametrize("rich", [True, False])
def test_a_terminal_gets_a_bar_if_rich_is_there_and_lines_otherwise(rich):
    pty = pytest.importorskip("pty", reason="no terminals to imitate on this system")
    if rich:
        pytest.importorskip("rich", reason="without rich there is no bar")
    hide = "" if rich else "import sys; sys.modules['rich'] = None\n"
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", hide + TERMINAL],
        env=os.environ | {"TERM": "xterm", "COLUMNS": "160"},
        stdout=theirs,
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
    assert process.wait(60) == 0, shown
    assert shown.count(b"said meanwhile") == 4
    assert (b"2/4" in shown) == rich
    assert b"Search: 4 trials in " in shown
