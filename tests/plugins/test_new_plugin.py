"""A stranger's first plugin: written by `prune new-plugin`, built, installed, used, tested."""

import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

from prune_core.testing import build_wheels

PACKAGES = Path(__file__).resolve().parents[2] / "packages"
USE = """
import torch
import prune_core
from prune_core.testing import ConvNet, make_toy

(plugin,) = [p for p in prune_core.plugins() if p.distribution == "my-plugin"]
assert plugin.error is None, plugin.error
model, masks = prune_core.prune(make_toy(ConvNet), "my-plugin:spread", sparsity=0.5)
print(prune_core.__file__)
print({name: int(mask["weight"].flatten(1).any(1).sum()) for name, mask in masks.items()})
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = tmp_path_factory.mktemp("project")
    command = [sys.executable, "-m", "prune_core", "new-plugin", "my-plugin"]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return folder / "my-plugin"


def test_the_templates_are_in_the_wheel(tmp_path):
    (wheel,) = build_wheels(PACKAGES / "prune-toolkit", into=tmp_path)
    with ZipFile(wheel) as file:
        assert "prune_toolkit/plugin_template/pyproject.toml.template" in file.namelist()


@pytest.fixture(scope="module")
def environment(project, fresh_environment, tmp_path_factory):
    """A fresh environment with prune-core and the plugin; torch and pytest are borrowed."""
    pytest.importorskip("torch", reason="the generated plugin prunes torch models")
    wheels = build_wheels(project, into=tmp_path_factory.mktemp("wheels"))
    environment = fresh_environment(*wheels)
    environment.borrow_packages()
    return environment


def test_its_algorithm_prunes_by_name(environment):
    where, kept = environment.python(USE).splitlines()
    assert str(environment.path) in where
    # Without an example input the last layer, which makes the outputs, keeps its channels.
    assert kept == "{'conv1': 4, 'conv2': 6}"


def test_it_is_listed_without_importing_torch(environment):
    code = (
        "import sys, prune_core\n"
        "print([e.qualified_name for e in prune_core.entries('pruner')], 'torch' in sys.modules)"
    )
    listed, torch = environment.python(code).rsplit(" ", 1)
    assert "'my-plugin:spread'" in listed
    assert torch == "False"


def test_its_own_tests_pass(environment, project):
    printed = environment.run("-m", "pytest", "-q", "-p", "no:cacheprovider", cwd=project).stdout
    assert "3 passed" in printed


def test_the_installed_wheel_carries_its_licence_and_its_types(environment):
    code = (
        "from importlib.metadata import files\n"
        "print(sorted(f.name for f in files('my-plugin') if f.name in ('LICENSE', 'py.typed')))"
    )
    assert environment.python(code) == "['LICENSE', 'py.typed']"
