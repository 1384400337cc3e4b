"""Shrink an adversary, use it in every way and in every hand, and hold it to the masked original.

The judge knows nothing of the engine but which slices it removed.
"""

import copy
import io
import pickle
import random
from contextlib import nullcontext
from dataclasses import fields, is_dataclass
from types import GeneratorType

import numpy as np
import torch
import torch.nn.functional as F
from oracle import masked_copy
from torch import nn
from torch.overrides import TorchFunctionMode

from prune_core.errors import PruneError
from prune_core.speedup import shrink
from prune_speedup.torch import units

__all__ = ["RIGHT", "outcome"]

RIGHT = ("right", "refused", "stays", "loud")
"""Outcomes with which a user knows where they stand."""


class StatisticsOfLiveChannels(TorchFunctionMode):
    """Leave channels that hold nothing but zeros out of means, variances and norms.

    That is what a norm over fewer channels is taken to mean.
    """

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in (torch.Tensor.mean, torch.Tensor.std, torch.Tensor.var):
            axis = kwargs.get("dim", args[1] if len(args) > 1 else None)
            over = range(args[0].ndim) if axis is None else [axis % args[0].ndim]
            return func(_cut(args[0], _live(args[0], over)), *args[1:], **kwargs)
        if func is F.layer_norm:
            x, shape, *rest = args
            told = {**dict(zip(("weight", "bias", "eps"), rest, strict=False)), **kwargs}
            over = range(x.ndim - len(shape), x.ndim)
            live = _live(x, over)
            for name in ("weight", "bias"):
                inner = {axis - over.start: kept for axis, kept in live.items()}
                told[name] = _cut(told.get(name), inner)
            small = _cut(x, live)
            return _grown(func(small, small.shape[over.start :], **told), x, live)
        if func is F.group_norm and args[1] == 1:
            x, _, weight, bias, eps = args
            live = _live(x, [1])
            inner = dict(zip([0], live.values(), strict=False))
            small = func(_cut(x, live), 1, _cut(weight, inner), _cut(bias, inner), eps)
            return _grown(small, x, live)
        return func(*args, **kwargs)


def _live(x, axes):
    """{axis: the indices with something in them}, of the axes of which that is a part."""
    found = {}
    for axis in axes:
        alive = (x != 0).movedim(axis, 0).flatten(1).any(1)
        if alive.any() and not alive.all():
            found[axis] = alive.nonzero().flatten()
    return found


def _cut(x, live):
    if x is None:
        return None
    for axis, kept in live.items():
        x = x.index_select(axis, kept)
    return x


def _grown(small, x, live):
    for axis, kept in live.items():
        shape = list(small.shape)
        shape[axis] = x.shape[axis]
        small = small.new_zeros(shape).index_copy(axis, kept, small)
    return small


def outcome(adversary, share=0.5, seed=0):
    """What became of it, and why.

    `right`: equal in every use. `stays`: equal, because what could not be followed was left.
    `refused`: an error, and the model as it was. `loud`: equal on the example; another use raises
    where the original does not. `broke`: not even the example runs. `silent`: other numbers.
    """
    torch.manual_seed(seed)
    with _double():
        model = adversary.build().eval()
        example = adversary.example()
        others = [make() for make in adversary.others]
    original = copy.deepcopy(model)
    try:
        found = units(model, example)
        chosen = _some(found, share, seed)
        report = shrink(model, example, units=chosen)
    except PruneError as error:
        return ("refused" if _unchanged(model, original) else "broke"), str(error)
    shapes = {change.name: (change.before, change.after) for change in report.changes}
    gone = [unit.slices for unit in chosen if _went(unit.slices, shapes)]
    uses = {"the example": _run_on(example)}
    uses |= {f"others[{at}]": _run_on(inputs) for at, inputs in enumerate(others)}
    uses |= {name: _use_on(use, example) for name, use in adversary.uses.items()}
    loud = ""
    for hand, taken in _hands(model):
        for name, use in uses.items():
            for training in (False, True):
                where = f"{name}, {'training' if training else 'evaluating'}, {hand}"
                truth = _truth(original, gone, use, training=training, norms=adversary.norms)
                if isinstance(truth, Exception):
                    continue
                seen = _tried(copy.copy, taken, use, training=training)
                if isinstance(seen, Exception):
                    if name == "the example" and not training and hand == "itself":
                        return "broke", f"{where}: {seen!r}"
                    loud = loud or f"{where}: {type(seen).__name__}: {seen}"
                elif (apart := difference(truth, seen)) is not None:
                    return "silent", f"{where}: {apart}; {_did(report)}"
    if loud:
        return "loud", f"{loud}; {_did(report)}"
    return ("right" if len(gone) == len(chosen) else "stays"), _did(report)


def _did(report):
    return f"removed {report.removed}, {report.attributes}, {report.corrections}, {report.returned}"


class _double:
    def __enter__(self):
        self._before = torch.get_default_dtype()
        torch.set_default_dtype(torch.float64)

    def __exit__(self, *_):
        torch.set_default_dtype(self._before)


def _some(found, share, seed):
    pick = random.Random(seed)
    return [
        found.unit(label)
        for group in found.groups
        for label in pick.sample(group.labels, int(len(group) * share))
    ]


def _went(slices, shapes):
    return all(
        name in shapes and shapes[name][0][axis] > shapes[name][1][axis]
        for name, axes in slices.items()
        for axis in axes
    )


def _unchanged(model, original):
    before, after = original.state_dict(), model.state_dict()
    return before.keys() == after.keys() and all(
        before[name].shape == after[name].shape and torch.equal(before[name], after[name])
        for name in before
    )


def _hands(model):
    """The small model as its users hold it."""
    yield "itself", model
    yield "deepcopy", copy.deepcopy(model)
    try:
        written = pickle.dumps(model)
    except (AttributeError, pickle.PicklingError, TypeError):
        pass  # a class or a function of a test's own: the original cannot be pickled either
    else:
        yield "pickle", pickle.loads(written)
        file = io.BytesIO()
        torch.save(model, file)
        file.seek(0)
        yield "save", torch.load(file, weights_only=False)


def _run_on(inputs):
    args = (inputs,) if not isinstance(inputs, tuple | dict) else ()
    args = inputs if isinstance(inputs, tuple) else args
    kwargs = inputs if isinstance(inputs, dict) else {}
    return lambda model: model(*args, **kwargs)


def _use_on(use, example):
    return lambda model: use(model, example)


def _truth(original, gone, use, *, training, norms):
    masked = masked_copy(original, gone)
    with StatisticsOfLiveChannels() if norms else nullcontext():
        return _tried(lambda model: model, masked, use, training=training)


def _tried(prepare, model, use, *, training):
    """What a use returns, with the model as it was afterwards, or the error that it raises."""
    state = copy.deepcopy({name: vars(m) for name, m in model.named_modules()})
    model.train(training)
    torch.manual_seed(0)
    try:
        with _double():
            return plain(use(model))
    except Exception as error:
        return error
    finally:
        for name, module in model.named_modules():
            vars(module).clear()
            vars(module).update(state[name])


def plain(tree):
    """Numbers and texts only: what two results are compared by."""
    if isinstance(tree, torch.Tensor):
        return tree.detach().clone().numpy()
    if isinstance(tree, np.ndarray):
        return tree.copy()
    if isinstance(tree, dict):
        return {key: plain(item) for key, item in tree.items()}
    if isinstance(tree, list | tuple | GeneratorType):
        return [plain(item) for item in tree]
    if is_dataclass(tree):
        return {each.name: plain(getattr(tree, each.name)) for each in fields(tree)}
    slots = getattr(type(tree), "__slots__", ())
    if slots or hasattr(tree, "__dict__"):
        assert not isinstance(tree, nn.Module)
        return {n: plain(getattr(tree, n)) for n in (*slots, *getattr(tree, "__dict__", ()))}
    return tree


def difference(truth, found, path="output"):
    """Where two results differ, or `None`; every number counts by itself."""
    if isinstance(truth, dict):
        if truth.keys() != found.keys():
            return f"{path} has other names"
        pairs = [(truth[key], found[key], f"{path}[{key!r}]") for key in truth]
    elif isinstance(truth, list):
        if len(truth) != len(found):
            return f"{path} has another length"
        pairs = [(a, b, f"{path}[{at}]") for at, (a, b) in enumerate(zip(truth, found))]  # noqa: B905
    elif isinstance(truth, np.ndarray | float):
        if np.shape(truth) != np.shape(found):
            return f"{path} is {np.shape(found)} instead of {np.shape(truth)}"
        if np.allclose(truth, found, rtol=1e-11, atol=1e-9, equal_nan=True):
            return None
        return f"{path} differs"
    else:
        return None if truth == found else f"{path} is {found!r} instead of {truth!r}"
    return next((d for pair in pairs if (d := difference(*pair)) is not None), None)
