"""Whatever a user can cause ends in one sentence on standard error."""

import os
import subprocess
import sys

import pytest

from prune_core import PruneError
from prune_core.cli import plugin_commands


def failed(process, *sentences):
    assert process.returncode == 1
    assert "Traceback" not in process.stderr
    for sentence in sentences:
        assert sentence in process.stderr


def test_an_unknown_name(prune):
    process = prune("show", "spreadd")
    sentence = "There is no pruner, quantizer, schedule or part 'spreadd'. Did you mean 'spread'?"
    failed(process, f"Error: {sentence}")
    assert process.stdout == ""


def test_an_unknown_kind(prune):
    failed(prune("list", "--kind", "pruners"), "no kind 'pruners'", "Did you mean 'pruner'")


def test_a_broken_plugin_is_a_warning_and_the_rest_is_listed(prune, acme):
    acme.add("import a_module_that_nobody_has\n")
    process = prune("list")
    assert process.returncode == 0
    assert process.stderr.count("Warning: Plugin acme-prune 1.2 is left out") == 1
    assert "linear" in process.stdout


COMMAND = """
@hookimpl
def prune_register_commands(app):
    @app.command()
    def {name}() -> None:
        "What a plugin adds."
        {body}
"""


def test_a_plugin_adds_a_command(prune, acme):
    acme.add(COMMAND.format(name="hello", body="print('hello')"))
    assert prune("hello").stdout == "hello\n"
    assert "What a plugin adds." in prune("--help").stdout


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("@hookimpl\ndef prune_register_commands(app):\n    1 / 0\n", "ZeroDivisionError"),
        (COMMAND.format(name="doctor", body="pass"), "the command 'doctor' is prune's own"),
        (
            COMMAND.format(name="hello", body="pass").replace(
                "hello()", "hello(x: list[list[int]])"
            ),
            "adds no commands",
        ),
    ],
    ids=["raises", "takes a name", "cannot be a command"],
)
def test_a_plugin_that_fails_to_add_commands_is_a_warning(prune, acme, text, cause):
    acme.add(text)
    process = prune("list", "-kschedule")  # in one word, which Typer reads
    assert process.returncode == 0
    assert "Warning: Plugin acme-prune:acme adds no commands: " in process.stderr
    assert cause in process.stderr
    assert prune("doctor").returncode == 1
    assert "spread" in prune("list").stdout


def test_control_c_inside_a_command(prune, acme):
    acme.add(COMMAND.format(name="wait", body="raise KeyboardInterrupt"))
    failed(prune("wait"), "Aborted")


def test_control_c_while_plugins_load(prune, acme):
    acme.add("raise KeyboardInterrupt\n")
    failed(prune("list"), "Aborted")


def test_a_prune_error_of_a_command_is_one_sentence(prune, acme):
    body = "from prune_core import ConfigError; raise ConfigError('sparsity 2 is more than 1')"
    acme.add(COMMAND.format(name="fail", body=body))
    process = prune("fail")
    failed(process)
    assert process.stderr == "Error: sparsity 2 is more than 1\n"


@pytest.mark.skipif(os.name == "nt", reason="pipes break differently there")
@pytest.mark.parametrize("arguments", [["list"], ["list", "--json"]])
def test_a_reader_that_leaves_is_no_crash(arguments):
    read, write = os.pipe()
    os.close(read)
    try:
        process = subprocess.run(
            [sys.executable, "-m", "prune_core", *arguments],
            stdout=write,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=60,
        )
    finally:
        os.close(write)
    assert process.returncode == 1
    assert process.stderr == ""


def test_a_command_of_a_package_that_is_not_there_says_what_to_install(monkeypatch):
    monkeypatch.setattr(plugin_commands, "plugins", lambda: ())
    with pytest.raises(PruneError, match="'new-plugin' here. `pip install prune-toolkit"):
        plugin_commands.check_is_there("new-plugin")
    plugin_commands.check_is_there("nobody-has-it")
    plugin_commands.check_is_there("list")
