"""What the registry says of packages that are not installed is what they register."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_directory_and_its_page_are_up_to_date():
    command = (sys.executable, ROOT / "scripts/plugin_directory.py", "--check")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_no_name_is_registered_by_two_packages_of_one_framework():
    """A name that two claim is an error for whoever has both."""
    found = ROOT / "packages/prune-core/src/prune_core/registry/directory.json"
    owners = {}
    for package, kinds in json.loads(found.read_text()).items():
        framework = "keras" if package == "prune-tf" else "torch"
        for kind, names in kinds.items():
            for name in names:
                owners.setdefault((framework, kind, name), []).append(package)
    assert len(owners) > 50
    assert {key: each for key, each in owners.items() if len(each) > 1} == {}
