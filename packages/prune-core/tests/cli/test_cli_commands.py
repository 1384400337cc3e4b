"""What `prune list`, `show` and `doctor` print."""

import json
import platform
from importlib.metadata import entry_points
from io import StringIO

from rich.console import Console

import prune_core
from prune_core import Reference
from prune_core.cli.list import _table
from prune_core.registry import Entry, Plugin

SPREAD = {
    "kind": "pruner",
    "name": "spread",
    "qualified_name": "acme-prune:spread",
    "distribution": "acme-prune",
    "version": "1.2",
    "prunes": "output channels",
    "summary": "Prunes the channels whose weights differ least.",
    "paper": "https://example.org/spread",
    "framework": "torch",
    "target": "acme_algorithm:SpreadPruner",
}
LINEAR = {
    "kind": "schedule",
    "name": "linear",
    "qualified_name": "prune-core:linear",
    "distribution": "prune-core",
    "version": prune_core.__version__,
    "prunes": "",
    "summary": "The same number of weights in each step.",
    "paper": "",
    "framework": "",
    "target": "prune_core.curves:linear",
}


def as_json(process):
    assert process.stderr == ""
    assert process.returncode == 0
    return json.loads(process.stdout)


def test_list_as_json(prune):
    listed = as_json(prune("list", "--json"))
    assert SPREAD in listed
    assert LINEAR in listed


def test_list_of_one_kind(prune):
    listed = as_json(prune("list", "--kind", "schedule", "--json"))
    assert {entry["kind"] for entry in listed} == {"schedule"}
    core = [entry["name"] for entry in listed if entry["distribution"] == "prune-core"]
    assert core == ["constant", "cubic", "geometric", "linear", "one_cycle"]


def test_list_is_a_table_for_people(prune):
    # Its columns depend on what is listed, so whatever else is installed here is switched off.
    others = {point.dist.name for point in entry_points(group="prune_core.plugins")}
    off = ",".join(others - {"prune-core"})
    lines = prune("list", PRUNE_DISABLED_PLUGINS=off).stdout.splitlines()
    assert "pruners" in [line.strip() for line in lines]
    (row,) = [line for line in lines if "spread" in line]
    # Where Keras has pruners as well, there is a column for the framework.
    assert [word for word in row.split() if word != "torch"] == [
        *["spread", "output", "channels", "acme-prune", "1.2"],
        *["Prunes", "the", "channels", "whose", "weights", "differ", "least."],
    ]


def test_a_summary_may_name_an_extra_in_brackets():
    reference = Reference("acme:Fast", "Needs the extra acme[fast].", prunes="channels")
    screen = Console(file=StringIO(), width=120)
    screen.print(_table("pruner", [Entry("pruner", "fast", reference, Plugin("a", "acme", "1"))]))
    assert "Needs the extra acme[fast]." in screen.file.getvalue()


def test_show_as_json_reads_the_source_and_imports_nothing(prune):
    shown = as_json(prune("show", "spread", "--json"))
    keys = shown.pop("config_keys")
    assert {"op_types", "op_names", "exclude", "sparsity", "total_sparsity"} < set(keys)
    assert keys["patience"] == "How long to wait before a channel goes."
    assert shown == {
        **SPREAD,
        "signature": "SpreadPruner(model, config_list: list[dict], *, mode: str = 'normal')",
        "documentation": "Prune the channels whose weights differ least.",
        "capabilities": {
            "granularity": "channels",
            "modes": ["normal", "global"],
            "needs_data": True,
        },
        "example": "```python\nSpreadPruner(model, config_list).compress()\n```",
    }


def test_show_for_people(prune):
    shown = prune("show", "acme-prune:spread").stdout
    for fact in (
        "acme-prune 1.2",
        "https://example.org/spread",
        "patience: How long",
        "one for each output channel",
        "normal, global",
        "a calibrate function that runs the model",
        ".compress()",
    ):
        assert fact in shown


def test_doctor_as_json(prune):
    report = as_json(prune("doctor", "--json"))
    assert report["python"] == platform.python_version()
    assert report["packages"]["prune-core"] == prune_core.__version__
    assert set(report["frameworks"]) == {"torch", "tensorflow", "tensorflow-cpu", "keras"}
    assert report["healthy"] is True
    assert {
        "distribution": "acme-prune",
        "version": "1.2",
        "status": "ok",
        "reason": "",
        "provides": {"pruner": ["spread"]},
    } in report["plugins"]


def test_doctor_says_what_is_left_out_and_fails(prune, acme):
    acme.add("import a_module_that_nobody_has\n")
    process = prune("doctor")
    assert process.returncode == 1
    assert process.stderr == ""
    assert "left out" in process.stdout
    assert "No module named 'a_module_that_nobody_has'" in process.stdout


def test_doctor_says_what_is_switched_off(prune):
    report = as_json(prune("doctor", "--json", PRUNE_DISABLED_PLUGINS="acme-prune"))
    statuses = {plugin["distribution"]: plugin["status"] for plugin in report["plugins"]}
    assert statuses["acme-prune"] == "disabled"


def test_doctor_repeats_a_mistake_in_what_is_switched_off(prune):
    process = prune("doctor", PRUNE_DISABLED_PLUGINS="acme")
    assert process.returncode == 1
    assert "PRUNE_DISABLED_PLUGINS names 'acme'" in process.stdout


def test_doctor_marks_hooks_that_import_a_framework(prune, acme):
    (acme.folder / "jax.py").write_text("")
    acme.add("import jax\n")
    report = as_json(prune("doctor", "--json"))
    (plugin,) = [p for p in report["plugins"] if p["distribution"] == "acme-prune"]
    assert plugin["status"] == "slow"
    assert "imports jax" in plugin["reason"]


def test_version(prune):
    assert prune("--version").stdout.strip() == f"prune-core {prune_core.__version__}"
