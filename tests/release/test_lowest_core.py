"""`scripts/lowest_core.py` and `check_lowest_core.py`, in a copy of this repository."""

import pytest


def lowest_core(repository, destination):
    done = repository.script("lowest_core", "prune-filter", str(destination))
    if done.returncode:
        return done.stderr
    about = (destination / "src/prune_core/__about__.py").read_text()
    assert (destination / "pyproject.toml").is_file()
    return about.removeprefix('__version__ = "').removesuffix('"\n')


@pytest.fixture
def destination(tmp_path):
    return tmp_path / "core"


def test_an_older_core_comes_from_its_tag(repository, destination):
    repository.set_version("prune-core", "0.1.0")
    repository.git("tag", "prune-core-v0.1.0")
    repository.set_version("prune-core", "0.2.0.dev0")
    repository.require_core("prune-filter", ">=0.1,<0.3")
    assert lowest_core(repository, destination) == "0.1.0"


def test_the_core_of_the_tree_is_taken_until_it_is_released(repository, destination):
    repository.set_version("prune-core", "0.1.0")
    repository.require_core("prune-filter", ">=0.1,<0.2")
    assert lowest_core(repository, destination) == "0.1.0"


def test_a_bound_on_a_development_version_means_the_one_in_the_tree(repository, destination):
    repository.set_version("prune-core", "0.4.0.dev3")
    repository.require_core("prune-filter", ">=0.4.0.dev0,<0.5")
    assert lowest_core(repository, destination) == "0.4.0.dev3"


def test_a_missing_tag_is_named(repository, destination):
    repository.set_version("prune-core", "0.3.0.dev0")
    repository.require_core("prune-filter", ">=0.2,<0.4")
    assert "prune-core 0.2 has no tag prune-core-v0.2" in lowest_core(repository, destination)


def test_a_requirement_without_a_lower_bound_is_refused(repository, destination):
    repository.require_core("prune-filter", "<0.4")
    assert "which has no lower bound" in lowest_core(repository, destination)


def test_the_core_of_the_tree_is_not_tested_twice(repository, destination):
    repository.set_version("prune-core", "0.1.0")
    repository.require_core("prune-filter", ">=0.1,<0.2")
    done = repository.script("check_lowest_core", "mincore-filter", str(destination), "-n", "2")
    assert "prune-filter allows no older prune-core than the one in the tree" in done.stdout
    assert not done.returncode
    assert not destination.exists()


def test_a_failure_with_the_lowest_core_is_one(repository, destination):
    repository.set_version("prune-core", "0.1.0")
    repository.git("tag", "prune-core-v0.1.0")
    repository.require_core("prune-filter", ">=0.1,<0.3")
    (repository.path / "scripts/install_from_tree.py").write_text("raise SystemExit(3)")
    done = repository.script("check_lowest_core", "prune-filter", str(destination))
    assert "0.1 is from tag prune-core-v0.1.0" in done.stdout
    assert done.returncode == 3
