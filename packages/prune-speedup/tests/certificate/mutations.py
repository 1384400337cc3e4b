"""Certificates and small models that are wrong, made of ones that are right.

Each function changes one thing such that what is said is no longer true, or returns False where it
finds nothing to change. Hashes are made to fit again, so that only the derivation can object.
"""

import copy
import hashlib
import random

import numpy as np

from prune_verify.checker import Checker, Rejected, check_read
from prune_verify.vocabulary import OPERATORS


class Case:
    """A certificate and the tensors of both files, to be changed."""

    def __init__(self, original, small, told):
        self.original, self.small = dict(original), dict(small)
        self.told = copy.deepcopy(told)

    def put(self, which, name, numbers):
        digest = hashlib.sha256(numbers.tobytes() + name.encode()).hexdigest()
        getattr(self, which)[name] = digest, numbers
        self.told[which][name] = digest

    def kept(self, value, axis):
        """The indices that a value is said to keep of an axis."""
        return {
            i for start, stop in self.told["sets"][value["kept"][axis]] for i in range(start, stop)
        }

    def set(self, indices):
        """The number of a set of indices."""
        self.told["sets"].append([[i, i + 1] for i in sorted(indices)])
        return len(self.told["sets"]) - 1


def cut_values(case):
    return [v for v in case.told["values"] if v.get("kept")]


def shift_kept(case, pick):
    """A removed index is kept in the place of one that was."""
    value = pick.choice(cut_values(case))
    axis = pick.choice(sorted(value["kept"]))
    size = value["shape"][int(axis)]
    kept = case.kept(value, axis)
    gone = sorted(set(range(size)) - kept)
    kept ^= {pick.choice(sorted(kept)), pick.choice(gone)}
    value["kept"][axis] = case.set(kept)


def shift_set(case, pick):
    """The same, of all values that keep the same."""
    value = pick.choice(cut_values(case))
    axis = pick.choice(sorted(value["kept"]))
    kept = case.kept(value, axis)
    kept ^= {
        pick.choice(sorted(kept)),
        pick.choice(sorted(set(range(value["shape"][int(axis)])) - kept)),
    }
    case.told["sets"][value["kept"][axis]] = [[i, i + 1] for i in sorted(kept)]


def keep_more(case, pick):
    """A removed index is said to be kept."""
    value = pick.choice(cut_values(case))
    axis = pick.choice(sorted(value["kept"]))
    size = value["shape"][int(axis)]
    kept = case.kept(value, axis)
    kept.add(pick.choice(sorted(set(range(size)) - kept)))
    value["kept"][axis] = case.set(kept)


def claim_zero(case, pick):
    """What is not zero is claimed to be."""
    number = pick.choice([n for n, v in enumerate(case.told["values"]) if v.get("kept")])
    value = case.told["values"][number]
    axis = pick.choice(sorted(value["kept"]))
    place = pick.choice(sorted(case.kept(value, axis)))
    known = case.derived[number].known
    known = np.broadcast_to(known, value["shape"]).take(place, int(axis))
    if (known == 0).all():
        return False
    value.setdefault("zero", {})[axis] = case.set([place])
    return None


def other_shape(case, pick):
    """A value has one index more."""
    value = pick.choice([v for v in case.told["values"] if v["shape"]])
    read = {at for step in case.told["steps"] if step["op"] != "same" for at in step["out"]}
    if case.told["values"].index(value) not in read:
        return False
    axis = pick.randrange(len(value["shape"]))
    value["shape"][axis] += 1
    return None


def other_operator(case, pick):
    """A step is another operator."""
    step = pick.choice([s for s in case.told["steps"] if s["op"] != "same"])
    step["op"] = pick.choice(sorted({*OPERATORS} - {step["op"], "same"}))


def other_size(case, pick):
    """The small model is told another number than it is."""
    steps = [s for s in case.told["steps"] if s.get("small")]
    if not steps:
        return False
    step = pick.choice(steps)
    places = [*_numbers(step["small"])]
    holder, key = pick.choice(places)
    holder[key] += pick.choice([1, 2, 3])
    return None


def told_apart(case, pick):
    """The small model is told another number where both are told the same."""
    steps = [s for s in case.told["steps"] if [*_numbers(s.get("with", {}))] and s["op"] != "move"]
    step = pick.choice(steps)
    small = copy.deepcopy(step["with"])
    holder, key = pick.choice([*_numbers(small)])
    holder[key] += 1
    step["small"] = small


def _numbers(tree):
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, each in items:
        if isinstance(each, dict | list):
            yield from _numbers(each)
        elif isinstance(each, int | float) and not isinstance(each, bool):
            yield tree, key


def exchange(case, pick):
    """Two small tensors of one shape are exchanged."""
    names = [*case.told["small"]]
    pick.shuffle(names)
    for one in names:
        for two in names:
            a, b = case.small[one][1], case.small[two][1]
            if (
                one != two
                and a.shape == b.shape
                and a.dtype == b.dtype
                and not np.array_equal(a, b)
            ):
                case.put("small", one, b)
                case.put("small", two, a)
                return None
    return False


def roll(case, pick):
    """The slices of a small tensor are in another order."""
    name = pick.choice([*case.told["small"]])
    numbers = case.small[name][1]
    if not numbers.ndim:
        return False
    axis = pick.randrange(numbers.ndim)
    other = np.roll(numbers, pick.randrange(1, max(numbers.shape[axis], 2)), axis)
    if np.array_equal(other, numbers):
        return False
    case.put("small", name, np.ascontiguousarray(other))
    return None


def disturb(case, pick):
    """One number of a small tensor is another."""
    name = pick.choice([n for n in case.told["small"] if case.small[n][1].dtype.kind == "f"])
    numbers = case.small[name][1].copy()
    flat = numbers.reshape(-1)
    flat[pick.randrange(flat.size)] += pick.choice([0.01, 1.0, float("nan"), float("inf")])
    case.put("small", name, numbers)


def not_zero(case, pick):
    """A removed number of the original, which a sum runs over, is none."""
    steps = [s for s in case.told["steps"] if s["op"] == "tensor" and "fold" not in s["with"]]
    found = []
    for step in steps:
        name, value = step["with"]["name"], case.derived[step["out"][0]]
        zeros = case.told["values"][step["out"][0]].get("zero", {})
        if "0" in zeros and name in case.producers:
            found.append((name, value))
    if not found:
        return False
    name, value = pick.choice(found)
    numbers = case.original[name][1].copy()
    numbers[int(pick.choice(list(value.gone(0))))] = pick.choice([0.5, -0.5, 1.0])
    case.put("original", name, numbers)
    return None


def forget_step(case, pick):
    """A step is missing."""
    del case.told["steps"][pick.randrange(len(case.told["steps"]))]


def other_hash(case, pick):
    """A hash belongs to another file."""
    which = pick.choice(["original", "small"])
    name = pick.choice([*case.told[which]])
    case.told[which][name] = hashlib.sha256(name.encode()).hexdigest()


def cut_output(case, pick):
    """Something that is smaller is returned."""
    cut = [n for n, v in enumerate(case.told["values"]) if v.get("kept")]
    case.told["outputs"] = [pick.choice(cut)]


def along_cut(case, pick):
    """A function of rows runs over an axis that was cut."""
    found = []
    for step in case.told["steps"]:
        if step["op"] == "along" and "over" not in step["with"]:
            value = case.derived[step["in"][0]]
            if value.kept and step["with"]["function"] != "sum":
                found.append((step, value))
    if not found:
        return False
    step, value = pick.choice(found)
    step["with"]["axes"] = [pick.choice(sorted(value.kept))] * len(step["with"]["axes"])
    return None


MUTATIONS = [
    shift_kept, shift_set, keep_more, claim_zero, other_shape, other_operator, other_size,
    told_apart, exchange, roll, disturb, not_zero, forget_step, other_hash, cut_output, along_cut,
]  # fmt: skip


def attack(original, small, told, producers, count, seed=0):
    """How many changed cases of each kind were made, and those that got through."""
    pick = random.Random(seed)
    sets = [np.concatenate([np.arange(*ends) for ends in each]) for each in told["sets"]]
    checker = Checker(original, small, sets)
    for step in told["steps"]:
        checker.run(step, told["values"])
    made, survived, seen = {}, [], set()
    for _ in range(count * 4):
        if sum(made.values()) == count:
            break
        mutation = pick.choice(MUTATIONS)
        case = Case(original, small, told)
        case.derived, case.producers = checker.values, producers
        if mutation(case, pick) is False:
            continue
        key = repr(case.told)
        if key in seen or case.told == told:
            continue
        seen.add(key)
        made[mutation.__name__] = made.get(mutation.__name__, 0) + 1
        try:
            check_read(case.original, case.small, case.told)
        except Rejected:
            continue
        survived.append((mutation.__name__, case))
    return made, survived
