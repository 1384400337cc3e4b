"""`scripts/release.py`, in a copy of this repository."""

import re
from pathlib import Path

import pytest
from packaging.requirements import Requirement

NEWS = "FPGM is faster on layers with many filters.\n"
PLUGINS = sorted(
    path.parent.name
    for path in Path(__file__).resolve().parents[2].glob("packages/*/pyproject.toml")
    if path.parent.name != "prune-core"
)


@pytest.fixture
def developed(repository):
    """Two packages on their way to 0.2.0, with news of one of them."""
    for package in ("prune-filter", "prune-core"):
        repository.set_version(package, "0.2.0.dev0")
    for plugin in PLUGINS:
        repository.require_core(plugin, ">=0.1,<0.3")
    repository.write("prune-filter", "changelog.d/+faster.feature.md", NEWS)
    return repository


def changed(repository, since, until="HEAD"):
    return repository.git("diff", "--name-only", since, until).splitlines()


def test_a_dry_run_says_every_step_and_does_none(developed):
    before = developed.git("rev-parse", "HEAD")
    done = developed.script("release", "prune-filter", "--dry-run")
    assert done.returncode == 0, done.stderr
    steps = [line for line in done.stdout.splitlines() if line.startswith("$")]
    assert [re.search("hatchling version|towncrier|git \\w+", step)[0] for step in steps] == [
        "hatchling version",
        "towncrier",
        "git add",
        "git commit",
        "git tag",
        "hatchling version",
        "git commit",
    ]
    assert developed.git("rev-parse", "HEAD") == before
    assert developed.git("status", "--porcelain") == ""
    assert developed.git("tag") == ""


def test_a_release_is_a_commit_and_a_tag_of_one_package(developed):
    before = developed.git("rev-parse", "HEAD")
    done = developed.script("release", "prune-filter")
    assert done.returncode == 0, done.stderr
    assert "git push origin HEAD prune-filter-v0.2.0" in done.stdout

    tag = "prune-filter-v0.2.0"
    assert developed.git("tag") == tag
    assert developed.git("log", "-1", "--format=%s", tag) == "Release prune-filter 0.2.0"
    assert developed.version("prune-filter", at=tag) == "0.2.0"
    changelog = developed.git("show", f"{tag}:packages/prune-filter/CHANGELOG.md")
    assert re.search(r"^## 0\.2\.0 \(\d{4}-\d\d-\d\d\)$", changelog, re.MULTILINE)
    assert NEWS.strip() in changelog
    assert not developed.file("prune-filter", "changelog.d/+faster.feature.md").exists()

    assert developed.version("prune-filter") == "0.3.0.dev0"
    assert developed.git("status", "--porcelain") == ""
    assert all(name.startswith("packages/prune-filter/") for name in changed(developed, before))


def test_after_a_release_of_the_core_the_plugins_may_use_the_next_one(developed):
    before = developed.git("rev-parse", "HEAD")
    assert developed.script("release", "prune-core").returncode == 0
    tag = "prune-core-v0.2.0"
    assert all(name.startswith("packages/prune-core/") for name in changed(developed, before, tag))

    assert developed.version("prune-core") == "0.3.0.dev0"
    assert [name for name in changed(developed, before) if "prune-core" not in name] == [
        f"packages/{plugin}/pyproject.toml" for plugin in PLUGINS
    ]
    for plugin in PLUGINS:
        text = developed.file(plugin, "pyproject.toml").read_text()
        requirement = Requirement(re.search(r'"(prune-core.*?)"', text)[1])
        assert str(requirement.specifier) == "<0.4,>=0.1"
        assert requirement.specifier.contains("0.3.0.dev0", prereleases=True)


def test_what_is_not_developed_yet_is_released_by_naming_the_step(repository):
    repository.set_version("prune-tf", "0.4.2")
    repository.git("tag", "prune-tf-v0.4.2")
    again = repository.script("release", "prune-tf")
    assert again.returncode == 1
    assert "prune-tf 0.4.2 is released: prune-tf-v0.4.2. Say patch, minor or major." in again.stderr

    assert repository.script("release", "prune-tf", "patch").returncode == 0
    assert repository.version("prune-tf", at="prune-tf-v0.4.3") == "0.4.3"
    assert repository.version("prune-tf") == "0.4.4.dev0"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["prune-filtr"], "'prune-filtr' is not in packages/, which holds prune-blocks, prune-c"),
        (["prune-filter", "huge"], "'huge' is neither release, patch, minor or major, nor a vers"),
        (["prune-filter", "0.0.1"], "past 0.0.1"),
    ],
)
def test_mistakes_are_named(repository, arguments, message):
    done = repository.script("release", *arguments)
    assert done.returncode == 1
    assert message in done.stderr


def test_uncommitted_changes_are_not_released(repository):
    repository.file("prune-filter", "README.md").write_text("something else")
    done = repository.script("release", "prune-filter")
    assert done.returncode == 1
    assert "uncommitted changes" in done.stderr
    assert "packages/prune-filter/README.md" in done.stderr


def test_a_plugin_that_needs_an_unreleased_core_waits_for_it(repository):
    repository.require_core("prune-filter", ">=0.4.0.dev0,<0.5")
    done = repository.script("release", "prune-filter")
    assert done.returncode == 1
    assert "Release prune-core first" in done.stderr
