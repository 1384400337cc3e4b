"""A recipe from a stranger: looking at it runs no code, and running it has to be allowed."""

import os
import subprocess
import sys
from importlib.util import find_spec

import pytest

STRANGE = """\
model: strange:make
inputs: {shape: [1, 4]}
evaluate: strange:evaluate
prune:
  - {algorithm: l1, sparsity: 0.5}
export: [{format: onnx}]
"""


@pytest.fixture
def stranger(folder):
    (folder / "strange.py").write_text("open('was_here', 'w').close()\n")
    (folder / "strange.yaml").write_text(STRANGE)
    return folder


def test_looking_runs_nothing(prune, stranger):
    said = prune("inspect", "strange.yaml").stdout
    assert not (stranger / "was_here").exists()
    assert "strange:make (model)" in said
    assert "strange:evaluate (evaluate)" in said
    assert all(len(line) <= 80 for line in said.splitlines())
    prune("inspect", "strange.yaml", "--json")
    assert not (stranger / "was_here").exists()


def test_running_has_to_be_allowed(prune, stranger):
    done = prune("run", "strange.yaml", "-o", "run", status=1)
    assert "strange:make (model)" in done.stderr
    assert "add --trust" in done.stderr
    assert not (stranger / "was_here").exists()
    assert not (stranger / "run").exists()


def at_a_terminal(folder, answer):
    """Run the recipe at a terminal where somebody types an answer; return what is seen there."""
    pty = pytest.importorskip("pty", reason="Windows has no such terminals")
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "prune_core", "run", "strange.yaml", "-o", "run"]
    process = subprocess.Popen(command, cwd=folder, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    seen = b""
    try:
        while b"[y/N]:" not in seen:
            seen += os.read(ours, 1024)
        assert not (folder / "was_here").exists()
        os.write(ours, answer.encode() + b"\n")
        while part := os.read(ours, 1024):
            seen += part
    except OSError:  # how Linux says that the other end has been closed
        pass
    finally:
        os.close(ours)
        process.wait(60)
    return " ".join(seen.decode().split())


def test_at_a_terminal_it_asks(stranger):
    said = at_a_terminal(stranger, "n")
    assert "strange:make (model)" in said
    assert "Do you trust it? [y/N]:" in said
    assert not (stranger / "was_here").exists()
    assert not (stranger / "run").exists()


def test_at_a_terminal_a_yes_runs_it(stranger):
    said = at_a_terminal(stranger, "y")
    assert (stranger / "was_here").exists()
    assert "'strange:make' names 'make', which 'strange' does not have" in said


def test_with_trust_it_runs(prune, stranger):
    done = prune("run", "strange.yaml", "-o", "run", "--trust", status=1)
    assert (stranger / "was_here").exists()
    assert "'strange:make' names 'make', which 'strange' does not have" in done.stderr


def test_a_pickle_needs_to_be_said_twice(prune, stranger):
    import pickle

    class Evil:
        def __reduce__(self):
            return open, ("was_here", "w")

    (stranger / "model.pt").write_bytes(pickle.dumps(Evil()))
    recipe = STRANGE.replace("model: strange:make", "model: {file: model.pt}").replace(
        "evaluate: strange:evaluate\n", ""
    )
    (stranger / "strange.yaml").write_text(recipe)
    done = prune("run", "strange.yaml", "-o", "run", status=1)
    assert "model.pt (model: the file is unpickled)" in done.stderr
    done = prune("run", "strange.yaml", "-o", "run", "--trust", status=1)
    assert "say pickle: true" in done.stderr
    recipe = recipe.replace("{file: model.pt}", "{call: work:make, weights: model.pt}")
    (stranger / "strange.yaml").write_text(recipe)
    done = prune("run", "strange.yaml", "-o", "run2", "--trust", status=1)
    assert "cannot be read" in done.stderr
    assert not (stranger / "was_here").exists()


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ("nowhere:make", "there is no module 'nowhere'"),
        ("work:mak", "did you mean 'make'"),
        ("work:batches", "made a list, and recipes prune torch models"),
        ("{call: work:make, arguments: {wide: 2}}", "failed: TypeError"),
        ("{huggingface: nowhere}", "holds no config.json"),
        ("{call: work:make, weights: nowhere.pt}", "nowhere.pt is not there"),
    ],
)
def test_what_is_not_what_it_should_be(prune, folder, model, says):
    if "huggingface" in model and find_spec("transformers") is None:
        says = "pip install transformers"
    recipe = STRANGE.replace("strange:make", model).replace("evaluate: strange:evaluate\n", "")
    (folder / "recipe.yaml").write_text(recipe)
    done = prune("run", "recipe.yaml", "-o", "run", "--trust", status=1)
    assert says.lower() in done.stderr.lower()
    assert "Traceback" not in done.stderr
