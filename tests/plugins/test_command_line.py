"""The `prune` command where prune-core is installed without its extra."""

import pytest


@pytest.fixture(scope="module")
def environment(fresh_environment):
    return fresh_environment()


def test_the_extra_that_is_missing_is_named_in_one_line(environment):
    process = environment.run("-m", "prune_core", "list", check=False)
    assert process.returncode == 1
    assert process.stderr == "The `prune` command needs rich: pip install 'prune-core[cli]'\n"


def test_the_installed_script_says_the_same(environment):
    script = environment.executable.with_name("prune")
    process = environment.run(script, check=False)
    assert process.returncode == 1
    assert "pip install 'prune-core[cli]'" in process.stderr
