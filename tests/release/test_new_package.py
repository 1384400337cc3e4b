"""`tox run -e new-package -- prune-example`: a package with its place in tox, docs and README."""

import os
import subprocess
import sys
from configparser import ConfigParser

import pytest
import yaml


@pytest.fixture(scope="module")
def extended(shared_repository):
    done = shared_repository.script("new_package", "prune-example")
    assert done.returncode == 0, done.stderr
    return shared_repository


def test_its_own_tests_pass(extended):
    folder = extended.path / "packages/prune-example"
    environment = {**os.environ, "PYTHONPATH": str(folder / "src")}
    command = (sys.executable, "-m", "pytest", "-q", folder / "tests/test_spread.py")
    done = subprocess.run(
        (*command, "-k", "not by_name"),
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_it_can_be_built_and_released(extended):
    extended.git("add", "--all")
    extended.git("commit", "--quiet", "--message", "Add prune-example")
    done = extended.script("release", "prune-example", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "Release prune-example 0.1.0" in done.stdout


def test_tox_docs_and_readme_know_it(extended):
    parser = ConfigParser(interpolation=None)
    parser.read(extended.path / "tox.ini")
    assert "example" in parser["tox"]["env_list"].split()
    sections = [name for name in parser.sections() if "example" in name]
    assert len(sections) == 2, "its own environment, and the one with the lowest core"
    assert "prune-example" not in parser["testenv:device"]["commands_pre"]
    text = (extended.path / "mkdocs.yml").read_text()
    assert text.count("prune-example") == 3, "its history, named twice on a line, and its sources"
    assert "history/prune-example.md" in str(yaml.load(text, yaml.BaseLoader)["nav"])
    assert "| `prune-example` |" in (extended.path / "README.md").read_text()


def test_a_name_that_is_taken_is_refused(extended):
    for name in ("prune-filter", "example"):
        done = extended.script("new_package", name)
        assert done.returncode == 1
        assert "must be a new name" in done.stderr
