"""Commands start without the frameworks, and each imports what it needs only."""

import subprocess
import sys

import pytest

CODE = """
import sys
from prune_core.cli import main
sys.argv = ["prune", *{arguments!r}]
try:
    main()
except SystemExit:
    pass
heavy = {{"torch", "tensorflow", "keras", "jax", "numpy"}} & set(sys.modules)
assert not heavy, heavy
"""


@pytest.mark.parametrize("arguments", [["list"], ["show", "linear"], ["doctor"], ["--help"]])
def test_no_framework_is_imported(arguments):
    code = CODE.format(arguments=arguments)
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_a_listing_in_json_waits_for_nothing_that_it_does_not_use():
    others = "{'rich.table', 'prune_core.config', 'prune_core.cli.describe'} & set(sys.modules)"
    code = f"{CODE.format(arguments=['list', '--json'])}assert not {others}, {others}"
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
