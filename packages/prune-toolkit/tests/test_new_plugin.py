"""What `prune new-plugin` writes, and what it refuses."""

import ast
import json
import subprocess
import sys
import tomllib

import pytest

from prune_core import PluginError
from prune_toolkit.new_plugin import compatible_range, write_template

FILES = [
    ".github/workflows/test.yml",
    ".gitignore",
    "CHANGELOG.md",
    "LICENSE",
    "README.md",
    "pyproject.toml",
    "src/my_plugin/__init__.py",
    "src/my_plugin/hooks.py",
    "src/my_plugin/py.typed",
    "src/my_plugin/spread.py",
    "tests/test_spread.py",
]


def prune(*arguments, cwd=None):
    command = (sys.executable, "-m", "prune_core", *arguments)
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False, timeout=60)


def test_every_file_is_written(tmp_path):
    process = prune("new-plugin", "my-plugin", "--json", cwd=tmp_path)
    assert json.loads(process.stdout) == {"directory": "my-plugin", "files": FILES}
    there = (tmp_path / "my-plugin").rglob("*")
    assert sorted(str(f.relative_to(tmp_path / "my-plugin")) for f in there if f.is_file()) == FILES


def test_people_are_told_what_comes_next(tmp_path):
    printed = prune("new-plugin", "my-plugin", "--directory", str(tmp_path / "here")).stdout
    assert printed.startswith(f"Wrote {len(FILES)} files into {tmp_path / 'here'}. Next:\n")
    assert "python -m pytest" in printed


def test_the_files_are_what_they_claim_to_be(tmp_path):
    write_template(tmp_path, "my-plugin", author="Ada")
    project = tomllib.loads((tmp_path / "pyproject.toml").read_text())["project"]
    assert project["name"] == "my-plugin"
    assert project["entry-points"] == {"prune_core.plugins": {"my-plugin": "my_plugin.hooks"}}
    assert project["dependencies"][0].startswith("prune-core[torch]>=")
    assert "Ada" in (tmp_path / "LICENSE").read_text()
    assert "${{ matrix.python }}" in (tmp_path / ".github/workflows/test.yml").read_text()
    for file in tmp_path.rglob("*.py"):
        ast.parse(file.read_text())


def test_a_folder_with_something_in_it_is_left_alone(tmp_path):
    (tmp_path / "my-plugin").mkdir()
    (tmp_path / "my-plugin" / "thesis.txt").write_text("years of work")
    process = prune("new-plugin", "my-plugin", cwd=tmp_path)
    assert process.returncode == 1
    assert "Error: my-plugin exists and is not empty." in process.stderr
    assert [file.name for file in (tmp_path / "my-plugin").iterdir()] == ["thesis.txt"]


def test_an_empty_folder_will_do(tmp_path):
    assert write_template(tmp_path, "my-plugin") == FILES


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [
        ("My_Plugin", "my-plugin"),
        ("my--plugin", "my-plugin"),
        ("3d", "my-3d"),
        ("../evil", "evil"),
        ("", "my"),
    ],
)
def test_a_bad_name_is_refused_with_the_rule_and_a_better_one(tmp_path, name, suggestion):
    rule = "lower-case letters, digits and single dashes"
    with pytest.raises(PluginError, match=f"{rule}.*such as '{suggestion}'"):
        write_template(tmp_path / "x", name)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("name", ["json", "prune-core", "class", "torch"])
def test_a_name_that_is_taken_is_refused(tmp_path, name):
    with pytest.raises(PluginError, match=f"such as 'my-{name}'"):
        write_template(tmp_path / "x", name)


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("0.1.0", ">=0.1,<0.2"),
        ("0.3.7", ">=0.3,<0.4"),
        ("1.4.2", ">=1.4,<2"),
        ("0.4.0.dev0", ">=0.4.0.dev0,<0.5"),
        ("2.0.0rc1", ">=2.0.0rc1,<3"),
    ],
)
def test_the_range_of_prune_core_that_fits(version, expected):
    from packaging.specifiers import SpecifierSet

    assert compatible_range(version) == expected
    assert SpecifierSet(expected).contains(version, prereleases=True)
