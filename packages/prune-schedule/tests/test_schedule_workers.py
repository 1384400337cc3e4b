"""Several workers share one study: every trial once, and the result that one worker has."""

import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from prune_core import MissingDependencyError, PruneError

pytest.importorskip("optuna", reason="searches are kept in Optuna studies")

# One process imports torch and forks the workers.
SCRIPT = """
import hashlib, os, signal, sys, time
from pathlib import Path
import torch
from torch import nn
from prune_core import BasicPruner
from prune_toolkit import (
    NormalSparsityAllocator, StraightMetricsCalculator, WeightDataCollector,
)
from prune_schedule import NetAdaptPruner, SensitivityPruner, SimulatedAnnealingPruner
import optuna

torch.set_num_threads(1)
kind, folder = sys.argv[1:3]
storage = sys.argv[3] if len(sys.argv) > 3 else None

def place(study):
    if storage is not None:
        return {"study_name": study, "storage": storage}
    return {"study_name": study, "experiment_data_dir": f"{folder}/{study}-kept"}

class Smallest(BasicPruner):
    def reset_tools(self):
        self.data_collector = WeightDataCollector(self)
        self.metrics_calculator = StraightMetricsCalculator()
        self.sparsity_allocator = NormalSparsityAllocator(self, transform=torch.abs)

x = torch.randn(64, 20, generator=torch.Generator().manual_seed(1))

def search(tell=lambda digest: None, **kept):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 40), nn.ReLU(), nn.Linear(40, 30), nn.Linear(30, 10))
    dense = model(x).detach()
    def evaluate(model):
        masks = b"".join(m.masks["weight"].numpy().tobytes() for m in model if hasattr(m, "masks"))
        tell(hashlib.blake2b(masks, digest_size=8).hexdigest())
        return -(model(x) - dense).square().mean().item()
    rules = [{"sparsity": 0.5, "op_types": ["Linear"]}]
    arguments = {"pruning_algorithm": Smallest, **kept}
    if kind == "annealing":
        pruner = SimulatedAnnealingPruner(
            model, rules, evaluate, tries=4, cool_down_rate=0.7, **arguments
        )
    elif kind == "sensitivity":
        pruner = SensitivityPruner(
            model, rules, evaluate, sparsity_per_iter=0.25, acc_drop_threshold=0.02, **arguments
        )
    else:
        def finetune(model):
            optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
            for _ in range(3):
                batch = x[torch.randperm(64)[:32]]
                optimizer.zero_grad()
                model(batch).square().mean().backward()
                optimizer.step()
        pruner = NetAdaptPruner(
            model, rules, finetune, evaluate, sparsity_per_iteration=0.1, **arguments
        )
    result = pruner.run()
    timeless = [{**trial, "seconds": 0} for trial in result.trials]
    found = {name: masks["weight"] for name, masks in result.masks.items()}
    found |= {name: value.detach().clone() for name, value in model.named_parameters()}
    return found, timeless

def lines(name):
    path = Path(folder, name)
    return path.read_text().split() if path.exists() else []

def note(name, word):
    with open(f"{folder}/{name}", "a") as file:
        file.write(f"{word}\\n")

def wait_until(true):
    for _ in range(6000):
        if true():
            return
        time.sleep(0.01)
    print("waited in vain", file=sys.stderr)
    os._exit(3)

def worker(name, study, hangs_at=None, patient=False):
    child = os.fork()
    if child:
        return child
    begun = []
    def tell(digest):
        begun.append(digest)
        note(study, digest)
        note(f"{study}-workers", name)
        if len(begun) == hangs_at:
            note(f"{study}-hangs", digest)
            time.sleep(90)
        # Both have a trial under way before either ends its first: they do share the work. (A
        # search that begins with the dense model has only that to evaluate at first.)
        if digest != dense:
            wait_until(lambda: len(set(lines(f"{study}-workers"))) == 2)
        # On a busy machine one may be quick enough to leave the other nothing to hang at.
        if patient and len(begun) > 3:
            wait_until(lambda: lines(f"{study}-hangs"))
    try:
        torch.save(search(tell, **place(study)), f"{folder}/{study}-{name}.pt")
    except BaseException:
        import traceback
        traceback.print_exc()
        os._exit(1)
    os._exit(0)

def check(study, name):
    masks, trials = torch.load(f"{folder}/{study}-{name}.pt", weights_only=True)
    assert all(torch.equal(masks[layer], expected[layer]) for layer in expected)
    assert trials == expected_trials

dense = hashlib.blake2b(b"\\1" * (20 * 40 + 40 * 30 + 30 * 10), digest_size=8).hexdigest()
seen = []
expected, expected_trials = search(seen.append)

# Two workers to the end.
children = [worker(name, "whole") for name in "ab"]
for child in children:
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
check("whole", "a"), check("whole", "b")
assert sorted(lines("whole")) == sorted(seen), "a trial was lost or made twice"
assert set(lines("whole-workers")) == {"a", "b"}

# One of them is killed in the middle of its second trial.
stays, dies = worker("a", "killed", patient=True), worker("b", "killed", hangs_at=2)
wait_until(lambda: lines("killed-hangs"))
os.kill(dies, signal.SIGKILL)
assert os.waitstatus_to_exitcode(os.waitpid(dies, 0)[1]) == -signal.SIGKILL
assert os.waitstatus_to_exitcode(os.waitpid(stays, 0)[1]) == 0
check("killed", "a")
assert sorted(lines("killed")) == sorted([*seen, *lines("killed-hangs")])

# Whoever comes later finds everything made.
def nothing(digest):
    raise AssertionError("evaluated again")
late, _ = search(nothing, **place("killed"))
assert all(torch.equal(late[layer], expected[layer]) for layer in expected)

if storage is not None:
    for study in ("whole", "killed"):
        trials = optuna.load_study(study_name=study, storage=storage).trials
        assert [trial.number for trial in trials] == list(range(len(seen)))
        assert all(trial.state.is_finished() for trial in trials)
print(len(seen))
"""


def share(kind, folder, *storage):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT, kind, str(folder), *storage],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def test_in_a_folder(tmp_path):
    assert share("annealing", tmp_path) == 2 + 4 * 5


def test_a_search_that_looks_at_layers_one_by_one(tmp_path):
    assert share("sensitivity", tmp_path) > 10


def test_a_search_that_trains(tmp_path):
    assert share("netadapt", tmp_path) == 1 + 5 * 3


def test_in_sqlite(tmp_path):
    assert share("annealing", tmp_path, f"sqlite:///{tmp_path}/study.db") == 22


def test_a_database_that_is_none(tmp_path):
    from prune_schedule.store.history import open_history

    for url, said in {
        "study.db": "storage is 'study.db', which is not the URL of a database",
        "oracel://here/db": "storage is 'oracel://here/db', which is not the URL of a database",
        f"sqlite:///{tmp_path}/nowhere/study.db": "unable to open database file",
    }.items():
        with pytest.raises(PruneError) as caught:
            open_history(None, url, "study", True, {})
        assert said in str(caught.value)


def test_a_driver_that_is_missing():
    from prune_schedule.store.history import open_history

    url = "mysql+pyodbc://me:secret@here/db"
    if importlib.util.find_spec("pyodbc"):
        pytest.skip("pyodbc is installed here")
    with pytest.raises(MissingDependencyError) as caught:
        open_history(None, url, "study", True, {})
    assert "its driver is missing" in str(caught.value)
    assert "secret" not in str(caught.value)


# --- a server ---------------------------------------------------------------------------------


def programs():
    """Return the folder of PostgreSQL's programs, which Debian does not put on the path."""
    found = shutil.which("initdb")
    places = [Path(found).resolve().parent] if found else []
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((place for place in places if (place / "initdb").exists()), None)


@pytest.fixture(scope="module")
def postgresql():
    """Run a server of our own on the loopback device, and return its URL."""
    pwd = pytest.importorskip("pwd", reason="the server needs an ordinary user of a Unix system")
    pytest.importorskip("psycopg", reason="no driver for PostgreSQL: pip install 'psycopg[binary]'")
    bin_ = programs()
    if bin_ is None:
        pytest.skip("no PostgreSQL on this machine: apt-get install postgresql")
    # It refuses to run as root; and somebody else cannot enter the folders that pytest makes.
    somebody = {}
    if os.getuid() == 0:
        nobody = pwd.getpwnam("nobody")
        somebody = {"user": nobody.pw_uid, "group": nobody.pw_gid}
    folder = Path(tempfile.mkdtemp(prefix="prune-postgresql-"))
    if somebody:
        shutil.chown(folder, **somebody)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = {"cwd": folder, "env": {"PATH": os.environ["PATH"], "LC_ALL": "C"}, **somebody}
    subprocess.run(
        [
            bin_ / "initdb",
            "-D",
            folder / "data",
            "-U",
            "prune",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--no-sync",
        ],
        check=True,
        capture_output=True,
        **settings,
    )
    listens = ["-h", "127.0.0.1", "-p", str(port), "-k", folder]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            [bin_ / "postgres", "-D", folder / "data", *listens, "-F"],
            stdout=log,
            stderr=subprocess.STDOUT,
            **settings,
        )
    try:
        ready = [bin_ / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port)]
        for _ in range(600):
            if subprocess.run(ready, check=False, **settings).returncode == 0:
                break
            assert server.poll() is None, (folder / "log").read_text()
            time.sleep(0.1)
        yield f"postgresql+psycopg://prune@127.0.0.1:{port}/postgres"
    finally:
        server.terminate()
        server.wait(60)
        shutil.rmtree(folder)


def test_on_a_server(tmp_path, postgresql):
    assert share("annealing", tmp_path, postgresql) == 22
