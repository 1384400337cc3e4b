"""Certificates written by hand, of a network small enough to see through."""

import copy
import hashlib

import numpy as np

from prune_verify.checker import check_read


def ranges(indices):
    return [[int(i), int(i) + 1] for i in indices]


class Proof:
    """Tensors and steps; `check()` has them checked, with hashes that fit."""

    def __init__(self):
        self.original, self.small = {}, {}
        self.values, self.steps, self.outputs, self.sets = [], [], [], []

    def set(self, indices):
        """The number of a set of indices."""
        self.sets.append(ranges(indices))
        return len(self.sets) - 1

    def add(self, op, ins, shape, kept=None, small=None, told=None, **claims):
        claim = {"shape": list(shape), **claims}
        if kept:
            claim["kept"] = {str(axis): self.set(indices) for axis, indices in kept.items()}
        step = {"op": op, "in": list(ins), "out": [len(self.values)], "with": told or {}}
        if small:
            step["small"] = small
        self.values.append(claim)
        self.steps.append(step)
        return len(self.values) - 1

    def input(self, *shape):
        return self.add("same", [], shape, told={"call": "an input"})

    def move(self, ins, shape, moves, kept=None, small=None):
        small = small and {"moves": small}
        return self.add("move", ins, shape, kept, small, {"moves": moves})

    def tensor(self, name, numbers, kept=None, small=None, **told):
        """A tensor, and of it in SMALL what is kept unless that is given."""
        part = numbers
        for axis, indices in (kept or {}).items():
            part = part.take(indices, axis)
        if told.get("fold") != "gained":
            self.original[name] = numbers
        self.small[name] = part if small is None else small
        return self.add("tensor", [], numbers.shape, kept, told={"name": name, **told})

    def files(self):
        """What the checker reads of both files."""
        return [
            {n: (hashlib.sha256(t.tobytes()).hexdigest(), t) for n, t in each.items()}
            for each in (self.original, self.small)
        ]

    def told(self):
        """The certificate, with hashes that fit."""
        files = self.files()
        return {
            "format": "prune-certificate",
            "version": 1,
            "sets": self.sets,
            "values": copy.deepcopy(self.values),
            "steps": copy.deepcopy(self.steps),
            "outputs": self.outputs,
            "assumptions": [],
            "original": {n: digest for n, (digest, _) in files[0].items()},
            "small": {n: digest for n, (digest, _) in files[1].items()},
        }

    def check(self):
        return check_read(*self.files(), self.told())


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def channels(zero=(1,), width=3, kept=(0, 2)):
    """A value of (2, width) whose indices `zero` are zero, of which `kept` are kept."""
    proof = Proof()
    proof.input(2, 4)
    weight = numbers(4, width)
    weight[:, list(zero)] = 0
    proof.tensor("first", weight, {1: list(kept)})
    made = proof.add("matmul", [0, 1], (2, width), {1: list(kept)})
    return proof, made


def read_by(proof, value, width=3, kept=(0, 2), seed=1):
    """The value summed by a second layer, whose result is returned."""
    weight = proof.tensor("second", numbers(width, 2, seed=seed), {0: list(kept)})
    proof.outputs = [proof.add("matmul", [value, weight], (2, 2))]
    return proof
