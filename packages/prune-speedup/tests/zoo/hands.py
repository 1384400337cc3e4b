"""A small model as its users hold it: copied, pickled, saved, loaded, compiled, exported."""

import copy
import io
import pickle
import tempfile
from pathlib import Path

import torch
from oracle import tensors

from prune_core import load_pruned, save_pruned

HANDS = ("deepcopy", "pickle", "torch.save", "load_pruned", "compile", "export")


def in_every_hand(build, original, small, inputs):
    """What goes wrong in which hand: `{hand: problem}`.

    A hand that the original model does not fit into either is left out.
    """
    expected = _run(small, inputs)
    problems = {}
    for hand in HANDS:
        try:
            found = _run(_taken(hand, small, inputs, build), inputs)
        except Exception as error:
            if _fits(hand, original, inputs, build):
                problems[hand] = f"{type(error).__name__}: {error}"[:300]
            continue
        if (apart := _apart(expected, found)) > 1e-4:
            problems[hand] = f"it differs by {apart:.1e}"
    return problems


def _taken(hand, model, inputs, build):
    if hand == "deepcopy":
        return copy.deepcopy(model)
    if hand == "pickle":
        return pickle.loads(pickle.dumps(model))
    if hand == "torch.save":
        file = io.BytesIO()
        torch.save(model, file)
        file.seek(0)
        return torch.load(file, weights_only=False)
    if hand == "load_pruned":
        with tempfile.TemporaryDirectory() as folder:
            save_pruned(model, Path(folder) / "small.safetensors")
            return load_pruned(build()[0].eval(), Path(folder) / "small.safetensors")
    if hand == "compile":
        torch._dynamo.reset()
        return torch.compile(copy.deepcopy(model), backend="eager")
    args, kwargs = _arguments(inputs)
    return torch.export.export(model, args, kwargs).module()


def _fits(hand, original, inputs, build):
    """Whether the model as it was is at home there, after a forward as the small one is."""
    try:
        _run(original, inputs)
        _run(_taken(hand, original, inputs, build), inputs)
    except Exception:
        return False
    return True


def _arguments(inputs):
    if isinstance(inputs, dict):
        return (), inputs
    return (inputs if isinstance(inputs, tuple) else (inputs,)), {}


def _run(model, inputs):
    args, kwargs = _arguments(inputs)
    torch.manual_seed(0)
    with torch.no_grad():
        return list(tensors(model(*args, **kwargs)))


def _apart(expected, found):
    worst = 0.0
    for left, right in zip(expected, found, strict=True):
        if left.shape != right.shape:
            return float("inf")
        if left.is_floating_point() and left.numel():
            same = left == right
            gap = torch.where(same, torch.zeros_like(left), left - right).abs().max().item()
            worst = max(worst, gap / max(left[left.isfinite()].abs().max().item(), 1e-12))
    return worst
