"""`examples/distill.py`, as a user runs it."""

import re
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[2] / "examples/distill.py"


def test_a_teacher_gives_back_what_few_labels_do_not(tmp_path):
    command = (sys.executable, "-W", "error", SCRIPT)
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = re.findall(r"^(.*\S) +([\d.]+)%$", done.stdout, re.MULTILINE)
    dense, pruned, labels, teacher = (float(percent) for _, percent in found)
    assert dense > 95
    assert pruned < labels < teacher
    assert teacher > dense - 2
