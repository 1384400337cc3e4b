"""Whatever a user can call says what its arguments are.

What users can call are the functions and classes that a package offers at its top, and those that
the pages of the reference show.
"""

import importlib
import re
from pathlib import Path

import griffe
import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = sorted(ROOT.glob("packages/*/src/*"))
NAMES = [folder.name for folder in PACKAGES]
SHOWN = sorted(
    {
        name
        for page in ROOT.glob("docs/**/*.md")
        for name in re.findall(r"^::: (\S+)$", page.read_text(), re.MULTILINE)
    }
)

# Called by torch, Keras, transformers and Lightning, whose own documentation says what with.
OF_FRAMEWORKS = re.compile(r"forward|state_dict|(load|save)_own_variables|on_\w+")


@pytest.fixture(scope="module")
def sources():
    loader = griffe.GriffeLoader(
        search_paths=[str(folder.parent) for folder in PACKAGES],
        docstring_parser="google",
        allow_inspection=False,
    )
    for name in NAMES:
        loader.load(name)
    loader.resolve_aliases(implicit=True, external=False)
    return loader.modules_collection


def undocumented(found):
    """Yield the paths of functions that take arguments and do not say what they are."""
    found = found.final_target if found.is_alias else found
    if found.is_function:
        given = [each.name for each in found.parameters if each.name not in ("self", "cls")]
        if given and not documented(found):
            yield found.path
    elif found.is_class or found.is_module:
        exported = found.exports if found.is_module else None
        for member in found.members.values():
            offered = not member.name.startswith("_") and (
                exported is None or member.name in exported
            )
            if offered and not member.is_alias and not (found.is_module and member.is_module):
                yield from undocumented(member)


def documented(function):
    """Whether a function has `Args:`, or takes the place of a method that has them."""
    same = [function]
    if function.parent.is_class:
        if OF_FRAMEWORKS.fullmatch(function.name):
            return True
        same += [
            base.members[function.name]
            for base in function.parent.mro()
            if function.name in base.members and base.members[function.name].is_function
        ]
    kinds = {
        section.kind.value for each in same if each.docstring for section in each.docstring.parsed
    }
    return "parameters" in kinds


@pytest.mark.parametrize("name", SHOWN)
def test_what_the_reference_shows(sources, name):
    assert sorted(undocumented(sources[name])) == []


@pytest.mark.parametrize("name", NAMES)
def test_what_a_package_offers(sources, name):
    offered = dir(importlib.import_module(name))
    package = sources[name]
    members = [package.members[each] for each in offered if each in package.members]
    members = [each for each in members if not each.is_alias or each.target_path[:5] == "prune"]
    found = {
        path
        for each in members
        if not each.is_module and each.name[0] != "_"
        for path in undocumented(each)
    }
    assert sorted(found) == []
