"""Wheels of this repository's packages, built once per run as pip would build them."""

from pathlib import Path

import pytest

from prune_core.testing import Environment, build_wheels

PACKAGES = Path(__file__).parents[1] / "packages"


@pytest.fixture(scope="session")
def wheelhouse(tmp_path_factory):
    """A folder with wheels of prune-core and of all that it requires."""
    folder = tmp_path_factory.mktemp("wheelhouse")
    build_wheels(PACKAGES / "prune-core", into=folder, dependencies=True)
    return folder


@pytest.fixture(scope="session")
def fresh_environment(wheelhouse, tmp_path_factory):
    """A function that makes an environment with prune-core and with the given wheels.

    The wheels come without what they depend on: so a test can install what pip would refuse, and
    what a later upgrade of prune-core can leave behind on anyone's machine.
    """

    def create(*wheels):
        environment = Environment.create(tmp_path_factory.mktemp("environment") / "venv")
        environment.install("--no-index", "--find-links", wheelhouse, "prune-core")
        if wheels:
            environment.install("--no-index", "--no-deps", *wheels)
        return environment

    return create
