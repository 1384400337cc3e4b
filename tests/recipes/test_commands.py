"""The commands around recipes, as a shell sees them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import prune_report


def test_a_run_keeps_all_that_it_takes_to_repeat_it(finished):
    run = finished / "whole"
    assert (run / "recipe.yaml").read_bytes() == (finished / "recipe.yaml").read_bytes()
    noted = json.loads((run / "run.json").read_text())
    assert noted["recipe"]["seed"] == 0
    assert {"python", "torch", "prune-core", "prune-filter"} <= noted["environment"][
        "versions"
    ].keys()
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    assert {"masks made", "model shrunk", "progress"} == {event["event"] for event in events}
    assert "prune run" in (run / "run.log").read_text()
    report = json.loads((run / "report.json").read_text())
    assert report["parameters"]["after"] < 0.5 * report["parameters"]["before"]
    assert report["quality"][0].keys() == {"metric", "dense", "pruned", "small", "recovered"}
    assert report["recipe"] == (run / "recipe.yaml").read_text()
    assert (run / "report.html").stat().st_size > 1000


def test_the_small_model_loads_as_the_report_says(finished, tmp_path):
    report = json.loads((finished / "whole/report.json").read_text())
    script = report["loading"]["code"] + "\nprint(model[3].out_channels)"
    environment = {**os.environ, "PYTHONPATH": str(finished)}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=finished / "whole", env=environment,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout == "4\n", done.stderr


def test_check_proves_it_again_and_notices_harm(prune, finished, folder):
    import shutil

    from safetensors.torch import load_file, safe_open, save_file

    shutil.copytree(finished / "whole", folder / "whole")
    said = prune("check", "whole", "--trust").stdout
    assert said.count("the same: ") == 5
    file = folder / "whole/steps/04-shrink/model.safetensors"
    with safe_open(file, "pt") as opened:
        notes = opened.metadata()
    tensors = load_file(file)
    tensors["8.bias"] += 1
    save_file(tensors, file, notes)
    assert prune("check", "whole", "--trust", status=1).stdout.count("DIFFERENT") == 5


def test_compare(prune, finished, folder):
    a, small = finished / "whole", finished / "whole/small.safetensors"
    said = prune("compare", str(a), str(a)).stdout
    assert "All tensors have the same shapes." in said
    dense = finished / "whole/steps/01-dense/model.safetensors"
    said = prune("compare", str(dense), str(small)).stdout
    assert "3.weight        8×8×3×3  4×4×3×3" in said
    assert all(len(line) <= 80 for line in said.splitlines())
    plain = json.loads(prune("compare", str(dense), str(small), "--json").stdout)
    assert plain["a"]["parameters"] > plain["b"]["parameters"]
    assert "holds no report.json" in prune("compare", str(folder), str(a), status=1).stderr


def test_export(prune, finished, folder):
    prune("export", str(finished / "whole"), "again.safetensors", "--trust")
    there = finished / "whole/exports/model.safetensors"
    assert (folder / "again.safetensors").read_bytes() == there.read_bytes()
    done = prune("export", str(finished / "whole"), "again.onx", "--trust", status=1)
    assert "Did you mean 'onnx'?" in done.stderr


def test_init_writes_what_runs(prune, folder):
    (folder / "recipe.yaml").unlink()
    functions = ("--data", "work:batches", "--evaluate", "work:accuracy")
    said = prune("init", "--model", "work:make", "--input", "2,1,8,8", *functions).stdout
    assert "convolutional" in said
    text = (folder / "recipe.yaml").read_text()
    assert "$schema=prune-recipe.schema.json" in text
    assert "algorithm: channel_obs" in text
    prune("run", "recipe.yaml", "-o", "run", "--trust")
    assert "there already" in prune("init", "-m", "work:make", "-i", "2,1,8,8", status=1).stderr


def test_init_says_that_there_are_better_algorithms(folder, monkeypatch, capsys):
    from prune_recipes import commands, starting

    monkeypatch.chdir(folder)
    monkeypatch.setattr(starting, "names", lambda kind: ("l1",))
    commands.init(Path("new.yaml"), "work:make", "", "2,1,8,8", data="work:batches")
    assert "pip install prune-oneshot" in capsys.readouterr().out
    assert "prune run new.yaml --output" in Path("new.yaml").read_text()


def test_what_was_never_trained_again_is_said(prune, folder, finished):
    with (folder / "work.py").open("a") as work:
        work.write("\n\ndef size(model):\n    return sum(map(torch.numel, model.parameters()))\n")
        work.write(
            "\n\ndef zeros(model):\n    return sum(map(torch.count_nonzero, model.parameters()))\n"
        )
    recipe = "model: work:make\ninputs: {shape: [2, 1, 8, 8]}\nevaluate: work:EVALUATE\n"
    recipe += "prune: [{algorithm: l1, sparsity: 0.5}]\n"
    for function in ("size", "zeros"):  # masks change the second one only
        (folder / "recipe.yaml").write_text(recipe.replace("EVALUATE", function))
        prune("run", "recipe.yaml", "-o", function, "--trust")
        said = " ".join(prune_report.read(folder / function).notes)
        assert ("pruning has changed zeros. Training" in said) == (function == "zeros")
    assert not prune_report.read(finished / "whole").notes


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "--model package.module:name"),
        (("-m", "work"), "of the form package.module:name"),
        (("-m", "work:make"), "--input"),
        (("-m", "work:make", "-i", "1,x"), "inputs.shape"),
        (("-m", "work:make", "-i", "1,1,8,8", "--algorithm", "l3"), "There is no pruner 'l3'"),
        (("-m", "work:make", "-i", "1,1,8,8", "--target", "flops"), "flops=0.5"),
    ],
)
def test_init_without_enough(prune, folder, arguments, says):
    done = prune("init", "new.yaml", *arguments, status=1)
    assert says in done.stderr
    assert not (folder / "new.yaml").exists()


def completions(folder, typed):
    """Ask as bash does, by Typer's protocol."""
    words = typed.split(" ")
    environment = {
        **os.environ,
        "_PRUNE_COMPLETE": "complete_bash",
        "COMP_WORDS": typed,
        "COMP_CWORD": str(len(words) - 1),
    }
    script = "import sys; sys.argv = ['prune']; from prune_core.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=folder, env=environment,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.stdout.split()


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("prune run ", {"recipe.yaml"}),
        ("prune run rec", {"recipe.yaml"}),
        ("prune inspect rec", {"recipe.yaml"}),
        ("prune compare who", {"whole"}),
        ("prune init --algorithm activ", {"activation_norm"}),
        ("prune export whole x --format on", {"onnx"}),
        ("prune show wan", {"wanda"}),
        ("prune list --kind prun", {"pruner"}),
    ],
)
def test_the_shell_completes(finished, typed, offered):
    assert offered <= set(completions(finished, typed))


SEARCH = """\
model: work:make
inputs: {shape: [2, 1, 8, 8]}
evaluate: work:loss
prune:
  - algorithm: simulated_annealing
    config_list: [{total_sparsity: 0.5, op_types: [Conv2d]}]
    options:
      pruning_algorithm: l1
      optimize_mode: minimize
      start_temperature: 20
      stop_temperature: 10
      cool_down_rate: 0.5
"""


def test_a_search_is_in_the_report(prune, folder):
    with (folder / "work.py").open("a") as work:
        work.write("\n\ndef loss(model):\n    return 1 - accuracy(model)\n")
    (folder / "recipe.yaml").write_text(SEARCH)
    prune("run", "recipe.yaml", "-o", "run", "--trust")
    document = prune_report.read(folder / "run")
    assert len(document.trials) > 1
    best = min(trial.score for trial in document.trials)
    page = (folder / "run/report.html").read_text()
    assert f"the best score, the lowest, is {best:.4g}" in page


DEEP = """
import torch
import torch.nn.functional as F
from torch import nn


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(8, 16), nn.Linear(16, 8)

    def forward(self, x):
        return x + self.fc2(self.fc1(x).relu())


class Deep(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers, self.head = nn.ModuleList(Layer() for _ in range(4)), nn.Linear(8, 2)
        nn.init.zeros_(self.layers[1].fc2.weight)
        nn.init.zeros_(self.layers[1].fc2.bias)
        self.register_buffer("goal", self.through(batches()[0]).mean(0).detach())

    def through(self, x):
        for layer in self.layers:
            x = layer(x)
        return x

    def forward(self, x):
        x = self.through(x)
        return {"loss": (x.mean(0) - self.goal).square().mean(), "logits": self.head(x)}


def batches():
    return [torch.randn(4, 8, generator=torch.Generator().manual_seed(0))]


def accuracy(model):
    return 0.5
"""
DEEP_RECIPE = """\
model: deep:Deep
inputs: {shape: [4, 8]}
data: deep:batches
evaluate: deep:accuracy
prune:
  - ALGORITHM
"""


@pytest.mark.parametrize(
    "algorithm",
    [
        "{algorithm: leave_one_out, count: 1}",
        "{algorithm: depth_and_width, target: {flops: 0.8}, options: {depth: leave_one_out}}",
    ],
)
def test_blocks_are_ranked_by_a_loss_and_not_by_how_good_a_model_is(prune, folder, algorithm):
    (folder / "deep.py").write_text(DEEP)
    (folder / "recipe.yaml").write_text(DEEP_RECIPE.replace("ALGORITHM", algorithm))
    prune("run", "recipe.yaml", "--output", "deep", "--trust")
    report = json.loads((folder / "deep/report.json").read_text())
    assert "layers.1" in [block["name"] for block in report["blocks"]]
    assert report["parameters"]["after"] < 0.8 * report["parameters"]["before"]
