"""A folder with a model, a training and recipes, as a user has one."""

import os
import subprocess
import sys
from functools import partial

import pytest

WORK = '''
"""A small network for random images of two kinds; every call is the same for the same model."""

import os
import signal
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn


def make(width=8):
    return nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(),
        nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.Dropout(0.1),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * width, 2),
    )


def samples():
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(64, 1, 8, 8, generator=generator)
    labels = (images[:, 0, :4].mean((1, 2)) > images[:, 0, 4:].mean((1, 2))).long()
    return images, labels


def batches():
    return list(samples()[0].split(16))


def labelled():
    images, labels = samples()
    return list(zip(images.split(16), labels.split(16)))


def train(model, optimizer):
    images, labels = samples()
    for part in torch.randperm(64).split(16):
        optimizer.zero_grad()
        F.cross_entropy(model(images[part]), labels[part]).backward()
        optimizer.step()
        die("batch")


@torch.no_grad()
def accuracy(model):
    images, labels = samples()
    die("evaluate")
    return (model(images).argmax(1) == labels).float().mean().item()


def die(what):
    """Die for good at the moment that a file beside this one names, such as "batch 7"."""
    plan = Path(__file__).with_name("die.txt")
    if not plan.exists():
        return
    when, number = plan.read_text().split()
    if when != what:
        return
    if int(number):
        plan.write_text(f"{when} {int(number) - 1}")
    else:
        plan.unlink()
        os.kill(os.getpid(), signal.SIGKILL)
'''

RECIPE = """\
model: work:make
inputs: {shape: [2, 1, 8, 8]}
train: {call: work:train, epochs: 2, optimizer: {call: torch.optim:Adam, arguments: {lr: 1e-2}}}
data: work:batches
evaluate: work:accuracy
prune:
  - algorithm: l1
    sparsity: 0.5
    reconstruct: least_squares
finetune: {call: work:train, epochs: 3, optimizer: {call: torch.optim:Adam, arguments: {lr: 1e-3}}}
export:
  - format: safetensors
"""

# A listener that dies as soon as so many steps are done.
DIE_AFTER = """
import os, signal, sys
from prune_core import hookimpl
from prune_core.registry import manager
import prune_recipes

class Killer:
    @hookimpl
    def prune_progress(self, task):
        if task.title == "prune run" and task.state == "running" and not task.under_way:
            if task.done == int(sys.argv[1]):
                os.kill(os.getpid(), signal.SIGKILL)

manager().register(Killer())
prune_recipes.run_recipe("recipe.yaml", sys.argv[2])
"""


def _filled(folder):
    (folder / "work.py").write_text(WORK)
    (folder / "recipe.yaml").write_text(RECIPE)
    (folder / "die_after.py").write_text(DIE_AFTER)
    return folder


def _call(folder, *arguments, status=0):
    """Run a Python module or script in a folder, without a terminal."""
    command = [sys.executable, "-W", "error", *arguments]
    environment = {**os.environ, "COLUMNS": "80", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == status, done.stderr
    return done


@pytest.fixture
def folder(tmp_path):
    return _filled(tmp_path)


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A folder like that, in which the recipe has been run into `whole`; nobody changes it."""
    folder = _filled(tmp_path_factory.mktemp("finished"))
    _call(folder, "-m", "prune_core", "run", "recipe.yaml", "-o", "whole", "--trust")
    return folder


@pytest.fixture
def call(folder):
    return partial(_call, folder)


@pytest.fixture
def prune(call):
    def run(*arguments, status=0):
        return call("-m", "prune_core", *arguments, status=status)

    return run
