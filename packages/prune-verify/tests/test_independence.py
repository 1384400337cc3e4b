"""What the checker is made of: nobody who trusts it has to trust more."""

import subprocess
import sys
from pathlib import Path

import prune_verify

SCRIPT = """
import sys
before = {*sys.modules}
import prune_verify.checker
names = {name.partition(".")[0] for name in {*sys.modules} - before}
print(*sorted(names - {*sys.stdlib_module_names}))
"""


def test_it_imports_numpy_and_a_reader_for_safetensors():
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["numpy", "prune_verify", "safetensors"]


def test_what_decides_can_be_read_in_one_sitting():
    folder = Path(prune_verify.__file__).parent
    files = {path.stem: path.read_text() for path in folder.glob("*.py")}
    assert len(files["checker"].splitlines()) <= 400
    whole = ("checker", "known", "vocabulary", "tensors")
    used = {
        name for name in files if f"prune_verify.{name} import" in "".join(map(files.get, whole))
    }
    assert used == {*whole} - {"checker"}
    assert sum(len(files[name].splitlines()) for name in whole) <= 700
