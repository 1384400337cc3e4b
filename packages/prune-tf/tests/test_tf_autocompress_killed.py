"""SIGKILL in the middle of AutoCompress: the end is that of a run never killed."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from autocompress_runs import assert_same, auto, numbers

SCRIPT = """
import os, signal, sys
import numpy as np
from autocompress_runs import auto, numbers, score, train

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

options = {"finetune": counted(train), "evaluate": counted(score)}
result = auto(experiment_data_dir=folder, **options).run()
np.savez(folder + "/end.npz", *numbers(result.model))
print(calls)
"""


# A round is five trials, two epochs and one score: 1–5, 6–7, 8.
@pytest.mark.parametrize("stop", [7, 12])
def test_a_run_that_is_killed_ends_as_if_nothing_had_been(stop, tmp_path):
    here = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}

    def run(stop):
        arguments = [sys.executable, "-c", SCRIPT, str(tmp_path), str(stop)]
        return subprocess.run(arguments, env=here, capture_output=True, text=True, check=False)

    assert run(stop).returncode == -signal.SIGKILL
    again = run(-1)
    assert again.returncode == 0, again.stderr
    # Trials, iterations and rounds that were complete are not made again.
    assert int(again.stdout) == {7: 16 - 5 - 1, 12: 16 - 8 - 3}[stop]
    whole = numbers(auto().run().model)
    with np.load(tmp_path / "end.npz") as end:
        assert_same([end[name] for name in end.files], whole)
