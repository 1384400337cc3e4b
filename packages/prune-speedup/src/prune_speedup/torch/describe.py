"""What a plan took from each tensor, and which masks stay, for the report."""

from collections.abc import Mapping

import numpy as np
import torch

from prune_core.traversal import named_tensors
from prune_speedup.engine.labels import Array
from prune_speedup.engine.plan import Plan
from prune_speedup.engine.propagate import Labelling
from prune_speedup.torch.masks import nested_masks
from prune_speedup.torch.report import Change, SpeedupReport
from prune_speedup.torch.tensors import residual

__all__ = ["describe"]


def describe(
    report: SpeedupReport, labelling: Labelling, plan: Plan, masks: Mapping[str, torch.Tensor]
) -> None:
    """Note in a report what the plan removes of a labelled model, and what is left of its masks."""
    graph, labels = labelling.graph, labelling.labels
    cuts: dict[str, dict[int, Array]] = {}
    for value, names in graph.tensors.items():
        kept = plan.kept(value)
        if kept:
            before = graph.metas[value].shape
            after = tuple(len(kept[at]) if at in kept else size for at, size in enumerate(before))
            report.changes.append(Change(names[0], before, after))
            report.slices[names[0]] = {
                axis: torch.from_numpy(indices.copy()) for axis, indices in kept.items()
            }
        cuts |= dict.fromkeys(names, kept)
    roots, _ = labels.classes()
    owned = np.concatenate(
        [c for cs in labelling.axes.values() for c in cs if c is not None] or [roots]
    )
    gone = np.zeros(len(roots), dtype=np.bool_)
    gone[roots[owned[plan.removed[owned]]]] = True
    report.removed = int(np.count_nonzero(gone))
    held = named_tensors(report.model)
    left = {name: residual(mask, cuts.get(name, {})) for name, mask in masks.items()}
    report.masks = nested_masks(
        {n: m.to(held[n].device) if n in held else m for n, m in left.items() if m is not None}
    )
    report.live_norms = sum(
        bool(plan.removed[found].any()) for _, found in labelling.flow.live_norms
    )
