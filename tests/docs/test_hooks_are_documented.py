"""Every hook says when it is called, with what, and shows how; and the site shows every hook."""

import inspect
import re
from pathlib import Path

import pytest

from prune_core import hookspecs

DOCS = Path(__file__).resolve().parents[2] / "docs"
HOOKS = {
    name: function
    for name, function in inspect.getmembers(hookspecs, inspect.isfunction)
    if hasattr(function, f"{hookspecs.PROJECT}_spec")
}


def section(docstring, title):
    """Return the indented text under `title:`."""
    found = re.search(rf"^{title}:\n((?:[ ]+.*\n?|\n)+)", docstring, re.MULTILINE)
    return found[1] if found else ""


def test_there_are_hooks_to_look_at():
    assert "prune_register_pruners" in HOOKS


@pytest.mark.parametrize("name", HOOKS)
def test_a_hook_says_when_it_is_called_and_shows_how(name):
    docstring = inspect.getdoc(HOOKS[name]) or ""
    assert re.search(r"^Called ", docstring, re.MULTILINE), "it does not say when it is called"
    assert "@hookimpl" in section(docstring, "Example"), "it has no example"
    assert f"def {name}(" in section(docstring, "Example"), "its example is of something else"


@pytest.mark.parametrize("name", HOOKS)
def test_a_hook_says_what_it_gets_and_what_it_gives(name):
    docstring = inspect.getdoc(HOOKS[name]) or ""
    signature = inspect.signature(HOOKS[name])
    for argument in signature.parameters:
        assert f"{argument}: " in section(docstring, "Args"), f"{argument!r} is not explained"
    if signature.return_annotation not in ("None", None):
        assert section(docstring, "Returns"), "what it returns is not explained"


def test_the_site_shows_every_hook_and_no_other():
    page = (DOCS / "reference" / "hooks.md").read_text("utf-8")
    shown = re.findall(r"^::: prune_core\.hookspecs\.(\w+)", page, re.MULTILINE)
    assert sorted(shown) == sorted(HOOKS)


def test_the_guide_tells_of_every_hook():
    guide = (DOCS / "plugins" / "write-a-plugin.md").read_text("utf-8")
    assert [name for name in HOOKS if f"`{name}`" not in guide] == []
