"""What the README says is so."""

import re
import shlex
import subprocess
import sys
from configparser import ConfigParser
from itertools import product
from pathlib import Path

import pytest

import prune_core

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md"]


def shell_commands(text):
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    return [line for block in blocks for line in block.splitlines()]


@pytest.fixture(scope="module")
def tox_ini():
    parser = ConfigParser(interpolation=None)
    parser.read(ROOT / "tox.ini")
    return parser


def environments(tox_ini):
    """Return the names in sections such as `testenv:mincore-{filter,tf}`."""
    for section in tox_ini.sections():
        if section.startswith("testenv:"):
            parts = re.split(r"\{([^}]*)\}", section.removeprefix("testenv:"))
            yield from map("".join, product(*(part.split(",") for part in parts)))


def test_the_two_commands_come_first():
    quickstart, tests, *_ = shell_commands(README)
    assert quickstart == "python -m pip install tox && tox run -e quickstart"
    assert tests == "python -m pip install tox && tox"


def test_ci_runs_the_command_of_the_readme():
    *_, last = (ROOT / ".ci/run").read_text().splitlines()
    assert last == shell_commands(README)[1]


def test_the_readme_installs_what_the_quickstart_uses(tox_ini):
    install = next(c for c in shell_commands(README) if c.startswith("python -m pip install ./"))
    *_, package = shlex.split(tox_ini["testenv:quickstart"]["commands_pre"])
    command = (sys.executable, ROOT / "scripts/install_from_tree.py", "--show", package)
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert shlex.split(install)[4:] == shown


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_environment_named_exists(page, tox_ini):
    named = re.findall(r"tox run -e ([\w,-]+)", page.read_text())
    assert named
    assert {name for names in named for name in names.split(",")} <= set(environments(tox_ini))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_that_is_linked_exists(page):
    for link in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        assert link.startswith("https://") or (ROOT / link).exists(), link


def test_the_table_names_what_is_registered():
    rows = re.findall(r"^\| `(prune-\w+)` \| [^|]* \| ([^|]*) \|$", README, re.MULTILINE)
    told = {package: set(re.findall(r"`(\w+)`", cell)) for package, cell in rows}
    registered = {package: set() for package in told}
    for entry in prune_core.entries():
        if entry.kind in ("pruner", "quantizer", "schedule", "engine"):
            registered.setdefault(entry.plugin.distribution, set()).add(entry.name)
    assert told == registered, "mend the table under 'What is there today' in README.md"


@pytest.mark.parametrize("plugin", prune_core.plugins(), ids=lambda plugin: plugin.distribution)
def test_the_readme_of_a_package_names_what_it_registers(plugin):
    page = ROOT / "packages" / plugin.distribution / "README.md"
    kinds = ("pruner", "quantizer", "schedule")
    names = {name for kind in kinds for name in plugin.provides.get(kind, ())}
    assert names <= set(re.findall(r"`(\w+)`", page.read_text()))
