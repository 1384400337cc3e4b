"""What the registry says of packages that are not installed is what they register."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_directory_and_its_page_are_up_to_date():
    command = (sys.executable, ROOT / "scripts/plugin_directory.py", "--check")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
