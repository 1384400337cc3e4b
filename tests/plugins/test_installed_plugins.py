"""Plugins as strangers publish them: wheels, installed into a fresh environment."""

import json

import pytest

from prune_core.testing import build_wheels, write_plugin

SOUND = """
from prune_core import Reference, hookimpl

@hookimpl
def prune_register_pruners():
    return {{"{name}": Reference("{package}.algorithm:Pruner", "A pruner for tests.")}}
"""
ALGORITHM = "class Pruner:\n    owner = __name__.partition('.')[0]\n"

LOOK = """
import json, sys, warnings
import prune_core

with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    plugins = prune_core.plugins()
    prune_core.plugins()
print(json.dumps({
    "warnings": [str(w.message) for w in caught],
    "modules": sorted(sys.modules),
    "plugins": {p.distribution: [p.version, p.error, p.disabled, list(p.heavy)] for p in plugins},
    "names": sorted(e.qualified_name for e in prune_core.entries("pruner")),
}))
"""

ASK = """
import sys, warnings
import prune_core

warnings.simplefilter("ignore")
try:
    print(prune_core.get_pruner(sys.argv[1]).owner)
except prune_core.PruneError as error:
    print(f"{type(error).__name__}: {error}")
"""


def sound(folder, name, pruner, **options):
    hooks = SOUND.format(name=pruner, package=name.replace("-", "_"))
    return write_plugin(folder, name, hooks=hooks, files={"algorithm.py": ALGORITHM}, **options)


def look(environment, **variables):
    return json.loads(environment.python(LOOK, env=variables))


def ask(environment, name, **variables):
    return environment.python(ASK, name, env=variables)


# What is wrong, and the sentence that must say so.
BROKEN = {
    "bad-import": (
        {"hooks": "import a_module_that_nobody_has\n"},
        "loading 'bad_import.hooks' raised ModuleNotFoundError: "
        "No module named 'a_module_that_nobody_has'",
    ),
    "bad-name": (
        {"hooks": SOUND.replace("pruners", "pruner").format(name="a", package="bad_name")},
        "it implements 'prune_register_pruner', which is not a hook of prune-core. "
        "Did you mean 'prune_register_pruners'",
    ),
    "bad-arguments": (
        {"hooks": SOUND.replace("s()", "s(n)").format(name="a", package="bad_arguments")},
        "Argument(s) {'n'} are declared in the hookimpl but can not be found in the hookspec",
    ),
    "bad-decorator": (
        {"hooks": SOUND.replace("@hookimpl", "").format(name="a", package="bad_decorator")},
        "its 'prune_register_pruners' lacks the decorator @prune_core.hookimpl.",
    ),
    "bad-attribute": (
        {"hooks": "", "entry_point": "bad_attribute.hooks:Hooks"},
        "its entry point 'bad-attribute' is 'bad_attribute.hooks:Hooks', "
        "and 'bad_attribute.hooks' has no attribute 'Hooks'.",
    ),
    "bad-requirement": (
        {
            "hooks": "import os, pathlib\npathlib.Path(os.environ['PROOF']).touch()\n",
            "requires": ["prune-core>=99"],
        },
        "it requires prune-core>=99, and this is prune-core ",
    ),
    "bad-exit": (
        {"hooks": "raise SystemExit('go away')\n"},
        "loading 'bad_exit.hooks' raised SystemExit: go away",
    ),
}


@pytest.fixture(scope="module")
def crowd(fresh_environment, tmp_path_factory):
    """Sound plugins among every kind of broken one."""
    source, wheels = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheels")
    projects = [
        write_plugin(source, name, version=f"1.{position}", **options)
        for position, (name, (options, _)) in enumerate(BROKEN.items())
    ]
    projects += [sound(source, "aardvark", "first"), sound(source, "zebra", "last")]
    projects += [
        sound(source, "twin-one", "twin"),
        sound(source, "twin-two", "twin", version="2.1"),
        write_plugin(
            source,
            "lost",
            hooks=SOUND.format(name="lost", package="lost"),
            files={"algorithm.py": "class Prune:\n    pass\n"},
        ),
    ]
    return fresh_environment(*build_wheels(*projects, into=wheels))


@pytest.fixture(scope="module")
def seen(crowd, tmp_path_factory):
    """What the crowd looks like, and whether the plugin with an unmet requirement was imported."""
    proof = tmp_path_factory.mktemp("proof") / "was_imported"
    return {**look(crowd, PROOF=str(proof)), "proof": proof.exists()}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_plugin_is_left_out_with_one_warning(seen, name):
    version = f"1.{list(BROKEN).index(name)}"
    about = [warning for warning in seen["warnings"] if f"Plugin {name} " in warning]
    assert len(about) == 1
    assert about[0].startswith(f"Plugin {name} {version} is left out: ")
    assert BROKEN[name][1] in about[0]
    assert seen["plugins"][name][1] in about[0]


def test_the_others_go_on_working(crowd, seen):
    assert len(seen["warnings"]) == len(BROKEN)
    others = [name for name in seen["names"] if not name.startswith("prune-core:")]
    assert others == ["aardvark:first", "lost:lost", "twin-one:twin", "twin-two:twin", "zebra:last"]
    assert ask(crowd, "first") == "aardvark"
    assert ask(crowd, "zebra:last") == "zebra"


def test_a_plugin_with_an_unmet_requirement_is_never_imported(seen):
    assert not seen["proof"]
    assert not any(module.startswith("bad_requirement") for module in seen["modules"])


def test_looking_imports_hooks_and_no_algorithm(seen):
    modules = set(seen["modules"])
    assert {"aardvark.hooks", "zebra.hooks"} <= modules
    assert not {"aardvark.algorithm", "zebra.algorithm", "torch", "typer", "rich"} & modules


def test_a_name_claimed_twice_is_ambiguous_only_when_bare(crowd):
    assert ask(crowd, "twin") == (
        "AmbiguousNameError: pruner 'twin' is claimed by twin-one 1.0 and twin-two 2.1. "
        "Write 'twin-one:twin' or 'twin-two:twin'."
    )
    assert ask(crowd, "twin-one:twin") == "twin_one"
    assert ask(crowd, "twin-two:twin") == "twin_two"


def test_a_reference_to_nothing_is_said_when_it_is_asked_for(crowd):
    assert ask(crowd, "lost") == (
        "PluginError: pruner 'lost' of lost 1.0 cannot be imported: "
        "'lost.algorithm:Pruner' names 'Pruner', which 'lost.algorithm' does not have. "
        "Did you mean 'Prune'?"
    )


def test_an_unknown_name_lists_what_is_close_and_what_is_there(crowd):
    assert ask(crowd, "firts") == (
        "UnknownNameError: There is no pruner 'firts'. Did you mean 'first'? "
        "Registered: first, last, lost, twin."
    )


def test_a_name_of_a_broken_plugin_says_why(crowd):
    assert "bad-attribute is left out: its entry point" in ask(crowd, "bad-attribute:x")


def test_a_disabled_plugin_is_neither_imported_nor_in_the_way(crowd):
    off = {"PRUNE_DISABLED_PLUGINS": "Twin_Two, bad-import"}
    seen = look(crowd, **off)
    assert seen["plugins"]["twin-two"] == ["2.1", None, True, []]
    assert "twin_two" not in seen["modules"]
    assert not any("bad-import" in warning for warning in seen["warnings"])
    assert ask(crowd, "twin", **off) == "twin_one"
    assert "twin-two is switched off by PRUNE_DISABLED_PLUGINS" in ask(crowd, "twin-two:x", **off)


def test_a_hooks_module_that_imports_a_framework_is_marked(fresh_environment, tmp_path):
    heavy = write_plugin(
        tmp_path,
        "heavy",
        hooks="import jax\n" + SOUND.format(name="heavy", package="heavy"),
        files={"algorithm.py": ALGORITHM},
    )
    stand_in = tmp_path / "jax"
    (stand_in / "jax").mkdir(parents=True)
    (stand_in / "jax" / "__init__.py").write_text("")
    (stand_in / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n'
        '[project]\nname = "a-stand-in"\nversion = "0"\n'
        '[tool.hatch.build.targets.wheel]\npackages = ["jax"]\n'
    )
    environment = fresh_environment(*build_wheels(heavy, stand_in, into=tmp_path / "wheels"))
    assert look(environment)["plugins"]["heavy"] == ["1.0", None, False, ["jax"]]
