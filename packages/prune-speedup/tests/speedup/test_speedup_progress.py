"""Whoever watches is told what `shrink` is doing; a model that takes no time says nothing."""

import pytest
import torch
from torch import nn

import prune_core
from prune_core import hookimpl
from prune_core.registry import registered


class Watcher:
    def __init__(self):
        self.heard = []

    @hookimpl
    def prune_progress(self, task):
        if task.title == "shrink":
            self.heard.append((task.state, task.said, task.done))


def test_each_stage_is_told(capfd):
    watcher, model = Watcher(), nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 2))
    mask = torch.ones(6, 4)
    mask[:2] = 0
    masks = {"0": {"weight": mask, "bias": mask[:, 0].clone()}}
    with registered(watcher, "watcher"):
        prune_core.shrink(model, torch.ones(1, 4), masks)
    states = [state for state, _, _ in watcher.heard]
    assert states[0] == "begun"
    assert states[-1] == "ended"
    said = [said for _, said, _ in watcher.heard]
    assert said.index("recording a forward") < said.index("comparing both models")
    assert watcher.heard[-1][2] >= 5
    assert capfd.readouterr() == ("", "")


def test_a_failure_ends_it():
    watcher = Watcher()
    with registered(watcher, "watcher"), pytest.raises(Exception, match="shape"):
        prune_core.shrink(nn.Linear(4, 6), torch.ones(1, 3))
    assert watcher.heard[-1][0] == "stopped"
