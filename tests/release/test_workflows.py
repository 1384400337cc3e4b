"""The workflows do what the scripts and tox.ini promise."""

import fnmatch
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = sorted(path.parent.name for path in ROOT.glob("packages/*/pyproject.toml"))


def workflow(root, name):
    return yaml.load((root / ".github/workflows" / name).read_text(), yaml.BaseLoader)


def steps(workflow):
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


@pytest.mark.parametrize("package", PACKAGES)
def test_every_tag_that_the_release_script_makes_starts_a_release(root, package):
    [pattern] = workflow(root, "release.yml")["on"]["push"]["tags"]
    assert fnmatch.fnmatch(f"{package}-v0.2.0", pattern)


def test_a_release_is_built_and_checked_before_it_is_published(root):
    release = workflow(root, "release.yml")
    assert release["jobs"]["publish"]["needs"] == "build"
    assert release["jobs"]["publish"]["permissions"] == {"id-token": "write"}
    commands = "\n".join(step.get("run", "") for step in steps(release))
    assert "twine check --strict" in commands


def test_ci_runs_what_a_contributor_runs(root):
    assert {"run": ".ci/run"} in [
        {"run": step["run"]} for step in steps(workflow(root, "ci.yml")) if "run" in step
    ]
    assert (root / ".ci/run").read_text().rstrip().endswith("python -m pip install tox && tox")
