"""One model of the zoo: prune half of its units, shrink it, and let the oracle compare."""

import copy
import random
from time import perf_counter

import torch
from hands import in_every_hand
from oracle import compare

from prune_core.errors import PruneError
from prune_core.speedup import shrink
from prune_speedup.torch import units

EXACT = 1e-6
"""The largest difference in double precision, relative to the largest number of an output."""

VISIBLE = 1e-3
"""How far masking has to move the outputs for their agreement to mean anything."""

ENOUGH = 0.3
"""The share of the parameters that has to go."""


def judge(build, share=0.5):
    """What became of a model, as one row of the table.

    `ok`: exact, and more than 30 % of the parameters gone. `kept`: exact, with less gone.
    `refused`: an error said why, and the model is what it was. `wrong`: the oracle disagrees.
    A model that is wrong once it is copied, saved, compiled or exported is `wrong`, too.
    `failed`: anything else.
    """
    torch.manual_seed(0)
    model, inputs = build()
    model = realistic(model)
    original = copy.deepcopy(model)
    row = {"parameters": sum(p.numel() for p in model.parameters())}
    try:
        found = units(model, inputs)
        chosen = half_of(found, share)
        row |= {"groups": len(found.groups), "units": len(found), "chosen": len(chosen)}
        report = shrink(model, inputs, units=chosen)
    except PruneError as error:
        untouched = all(map(torch.equal, model.parameters(), original.parameters()))
        return row | {
            "status": "refused" if untouched else "failed",
            "reason": f"{type(error).__name__}: {error}",
        }
    shapes = {change.name: (change.before, change.after) for change in report.changes}
    gone = [unit.slices for unit in chosen if went(unit.slices, shapes)]
    verify = report.seconds.pop("verify", 0.0)
    left = sum(p.numel() for p in model.parameters())
    flops_before, flops_after = report.flops
    # Whatever was changed besides tensors has to survive what users do with a model.
    repaired = bool(report.attributes or report.corrections)
    problems = in_every_hand(build, original, model, inputs) if repaired else {}
    start = perf_counter()
    apart, moved = compare(original, model, inputs, gone)
    row |= {
        "removed": 1 - left / max(row["parameters"], 1),
        "flops": 1 - flops_after / max(flops_before, 1),
        "difference": apart,
        "moved": moved,
        "verified": report.difference,
        "seconds": round(sum(report.seconds.values()), 3),
        "stages": {stage: round(spent, 3) for stage, spent in report.seconds.items()},
        "verify_seconds": round(verify, 3),
        "oracle_seconds": round(perf_counter() - start, 3),
        "attributes": len(report.attributes),
        "corrections": len(report.corrections),
        "hands": problems,
        "inside": report.inside,
        "looked_at": report.verified,
        "returned": len(report.returned),
    }
    if not apart < EXACT:
        return row | {"status": "wrong", "reason": "the oracle disagrees"}
    if problems:
        return row | {"status": "wrong", "reason": f"in other hands: {problems}"}
    if moved < VISIBLE and gone:
        return row | {"status": "failed", "reason": "the mask moves nothing that could be seen"}
    if row["removed"] <= ENOUGH:
        return row | {"status": "kept", "reason": why_kept(report, found)}
    return row | {"status": "ok", "reason": ""}


def realistic(model):
    """Statistics and constants such as training leaves them."""
    with torch.no_grad():
        for module in model.modules():
            if isinstance(getattr(module, "running_var", None), torch.Tensor):
                module.running_mean.normal_(0, 0.2)
                module.running_var.uniform_(0.5, 1.5)
        for parameter in model.parameters():
            if parameter.numel() > 1 and (parameter == parameter.flatten()[0]).all():
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.eval()


def half_of(found, share):
    """This share of every group of interchangeable units, blindly."""
    pick = random.Random(0)
    labels = [
        label
        for group in found.groups
        for label in pick.sample(group.labels, int(len(group) * share))
    ]
    return [found.unit(label) for label in labels]


def went(slices, shapes):
    """Whether a unit was removed: every axis that it cuts has become shorter."""
    return all(
        name in shapes and shapes[name][0][axis] > shapes[name][1][axis]
        for name, axes in slices.items()
        for axis in axes
    )


def why_kept(report, found):
    """What kept the largest parameters whole."""
    if report.unknown:
        return "no rule for " + ", ".join(report.unknown)
    if report.returned:
        return report.returned[0]
    shapes = {change.name for change in report.changes}
    whole = [name for name in found.shapes if name not in shapes]
    if not whole:
        return "few units beside what stays"
    largest = max(whole, key=lambda name: torch.Size(found.shapes[name]).numel())
    return f"{largest}: {found.why_fixed(largest, 0) or 'a unit of its own'}"
