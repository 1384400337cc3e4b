"""Looking names up stays cheap: what is imported is what is needed."""

import json
import subprocess
import sys

FRAMEWORKS = {"torch", "tensorflow", "keras", "jax", "numpy"}


def modules_after(code):
    """The modules that a fresh interpreter has imported after running `code`."""
    report = "import sys, json; print(json.dumps(sorted(sys.modules)))"
    process = subprocess.run(
        [sys.executable, "-c", f"{code}\n{report}"], capture_output=True, text=True, check=True
    )
    return set(json.loads(process.stdout))


def test_importing_prune_core_imports_only_its_own_face():
    ours = {m for m in modules_after("import prune_core") if m.startswith("prune_core")}
    assert ours == {"prune_core"}


def test_importing_prune_core_imports_no_plugin_machinery():
    loaded = modules_after("import prune_core")
    assert not loaded & {"pluggy", "inspect", "dataclasses", "importlib.metadata", *FRAMEWORKS}


def test_discovery_imports_no_framework_and_nothing_slow():
    loaded = modules_after("import prune_core; prune_core.plugins()")
    slow = {"importlib.metadata", "email", "packaging", "pathlib", "zipfile", "difflib"}
    assert not loaded & {"typer", "rich", *slow, *FRAMEWORKS}


def test_every_public_name_can_be_had():
    import prune_core

    assert set(prune_core.__all__) <= set(dir(prune_core))
