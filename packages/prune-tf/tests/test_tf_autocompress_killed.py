"""SIGKILL in the middle of AutoCompress: the end is that of a run never killed."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from autocompress_runs import assert_same, auto, numbers, score, train

SCRIPT = """
import os, signal, sys
from autocompress_runs import auto, score, train

folder, stop = sys.argv[1], int(sys.argv[2])
calls = 0

def counted(function):
    def call(model):
        global calls
        calls += 1
        if calls == stop:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(model)
    return call

auto(experiment_data_dir=folder, finetune=counted(train), evaluate=counted(score)).run()
"""


def test_a_run_that_is_killed_twice_ends_as_if_nothing_had_been(tmp_path):
    here = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    # A round is five trials, two epochs and one score: 1–5, 6–7, 8. Trials, iterations and rounds
    # that were complete are not made again: six of the first run, so that the twelfth is the sixth.
    for stop in (7, 12 - 5 - 1):
        command = [sys.executable, "-c", SCRIPT, str(tmp_path), str(stop)]
        killed = subprocess.run(command, env=here, capture_output=True, text=True, check=False)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
    calls = []

    def counted(function):
        return lambda model: (calls.append(1), function(model))[1]

    options = {"finetune": counted(train), "evaluate": counted(score)}
    result = auto(experiment_data_dir=tmp_path, **options).run()
    assert len(calls) == 16 - 8 - 3
    assert_same(numbers(result.model), numbers(auto().run().model))
