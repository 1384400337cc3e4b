"""Commands start without the frameworks, and each imports what it needs only."""

import subprocess
import sys

import pytest

from prune_core.cli.quick import _read

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


@pytest.mark.parametrize(
    "arguments",
    [["list"], ["list", "-k", "schedule", "--json"], ["show", "linear", "--framework=torch"]],
)
def test_what_only_reads_names_waits_for_no_typer(arguments):
    code = f"{CODE.format(arguments=arguments)}assert 'typer' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("", ([], {})),
        ("l1 --json", (["l1"], {"json": "--json"})),
        ("-k pruner l1 --kind=part", (["l1"], {"kind": "part"})),
        ("--kind", None),
        ("-kpruner", None),
        ("--help", None),
        ("--kind pruner --jso", None),
    ],
)
def test_only_what_is_plain_is_read_without_typer(arguments, told):
    assert _read(arguments.split(), {"--kind": "kind", "-k": "kind"}) == told
