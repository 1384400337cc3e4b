"""Optuna's own dashboard, which knows nothing of this package, reads what a search keeps."""

import json
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

import pytest
import torch
from torch import nn

from prune_core import PruneWarning
from prune_schedule import SimulatedAnnealingPruner

pytest.importorskip("optuna", reason="searches are kept in Optuna studies")
pytest.importorskip(
    "optuna_dashboard", reason="Optuna's dashboard is a program of its own: pip install it to see"
)

PATIENCE = 60.0


@contextmanager
def dashboard(storage, folder):
    """Run the dashboard on the loopback device, and yield what asks it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # Not its script, which may be installed elsewhere than what runs these tests.
    start = "import sys; from optuna_dashboard._cli import main; sys.exit(main())"
    command = [sys.executable, "-c", start, "--host", "127.0.0.1", "--port", str(port), storage]
    ask_directly = build_opener(ProxyHandler({})).open

    def ask(path):
        with ask_directly(f"http://127.0.0.1:{port}/api/{path}", timeout=PATIENCE) as answer:
            return json.load(answer)

    with (folder / "dashboard.log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=folder)
        try:
            until = time.monotonic() + PATIENCE
            while True:
                try:
                    ask("meta")
                    break
                except URLError:
                    assert server.poll() is None, (folder / "dashboard.log").read_text()
                    assert time.monotonic() < until, "the dashboard does not answer"
                    time.sleep(0.1)
            yield ask
        finally:
            server.terminate()
            server.wait(PATIENCE)


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(20, 40), nn.ReLU(), nn.Linear(40, 10))


def search(stop_at=None, **kept):
    calls = []

    def evaluate(model):
        calls.append(1)
        if len(calls) == stop_at:
            raise KeyboardInterrupt
        if len(calls) == 3:
            raise ValueError("no data")
        return model[0].masks["weight"].float().mean().item()

    rules = [{"sparsity": 0.5, "op_types": ["Linear"]}]
    pruner = SimulatedAnnealingPruner(
        net(), rules, evaluate, "minimize", "smallest", cool_down_rate=0.7, **kept
    )
    with pytest.warns(PruneWarning, match="no data"):
        return pruner.run().trials


@pytest.mark.parametrize("place", ["journal", "database"])
def test_the_dashboard_shows_every_trial(place, tmp_path):
    if place == "journal":
        kept, storage = {"experiment_data_dir": tmp_path / "search"}, "search/study.journal"
    else:
        kept, storage = {"storage": f"sqlite:///{tmp_path}/search.db"}, "sqlite:///search.db"
    search(stop_at=5, **kept)
    with dashboard(storage, tmp_path) as ask:
        (study,) = ask("studies")["study_summaries"]
        assert study["study_name"] == "SimulatedAnnealingPruner"
        assert study["directions"] == ["minimize"]
        detail = f"studies/{study['study_id']}"
        assert len(ask(f"{detail}?after=0")["trials"]) == 4

        # The search goes on while it is looked at.
        trials = search(**kept)
        until = time.monotonic() + PATIENCE
        while len(shown := ask(f"{detail}?after=0")["trials"]) < len(trials):
            assert time.monotonic() < until, "the dashboard does not see the trials that came"
            time.sleep(0.5)
        importances = ask(f"{detail}/param_importances")["param_importances"]

    assert [trial["number"] for trial in shown] == [trial["trial"] for trial in trials]
    for trial, made in zip(shown, trials, strict=True):
        assert trial["state"] == ("Fail" if made["score"] is None else "Complete")
        assert trial.get("values") == (None if made["score"] is None else [made["score"]])
        params = {p["name"]: float(p["param_external_value"]) for p in trial["params"]}
        assert params == made["sparsities"]
        (attribute,) = trial["user_attrs"]
        assert json.loads(attribute["value"]) == made
    assert {importance["name"] for importance in importances[0]} == {"0", "2"}
