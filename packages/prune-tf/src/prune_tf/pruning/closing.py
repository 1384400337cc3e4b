"""Masks that go on over what follows a masked channel, so that all of it can be removed.

A channel of which the kernel and the bias are masked still gets a constant from the offset of the
batch norm behind it. So that is masked as well; and where something is left even then, such as a
table of positions that is added, so is whatever else belongs to the channel.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from prune_speedup.engine.plan import Plan
from prune_speedup.engine.units import Units
from prune_tf.masks import Masks
from prune_tf.speedup.find_units import both, masks_of_units
from prune_tf.speedup.labelling import recorded_of
from prune_tf.speedup.run import plan_for

if TYPE_CHECKING:
    from prune_tf.pruning.pruner import Pruner
    from prune_tf.pruning.targets import Target

__all__ = ["closed", "masks_that_go"]


def closed(
    found: Units,
    masks: Mapping[str, Mapping[str, Any]],
    gone: Sequence[int],
    constants: str = "exact",
) -> Masks:
    """Return masks with which `shrink` removes all that some masks were chosen for.

    Args:
        found: The model's units.
        masks: Masks of what makes the channels.
        gone: The numbers of the units that they are of.
        constants: What `shrink` will be told.
    """
    model = recorded_of(found.labelling).model
    more = both(masks, masks_of_units(model, found, gone, every=False))
    stays = _staying(found, gone, plan_for(found.labelling, more, constants))
    # One of several constants that are merged stays for the others; without it, another would.
    with_them = [
        label
        for group in found.groups
        if not stays.isdisjoint(group.labels)
        for label in group.labels
    ]
    wanted = sorted({*gone} & {*with_them})
    return both(more, masks_of_units(model, found, wanted)) if wanted else more


def masks_that_go(
    pruner: Pruner, ratio: Callable[[Target], float], constants: str = "exact"
) -> Masks:
    """Return masks of channels that go together, all of which `shrink` removes.

    Args:
        pruner: A pruner in the mode `dependency_aware`; its masks stay as they are.
        ratio: Takes a target and returns the ratio that it is to lose.
        constants: What `shrink` will be told.
    """
    coupling, targets = pruner.coupling, pruner.targets
    assert coupling is not None, "only channels that go together can be followed"
    scores = pruner.scores()
    alive = {each.name: pruner.alive(each) for each in targets}
    gone = coupling.choose(targets, scores, alive, ratio)
    made = pruner.masks_for(coupling.masks_of(targets, scores, gone))
    return closed(coupling.units, made, gone, constants) if gone else made


def _staying(found: Units, gone: Sequence[int], plan: Plan) -> set[int]:
    """Which of some units a plan leaves where they are."""
    roots = found.labelling.labels.find(np.array(gone, dtype=np.int64))
    return {
        label for label, root in zip(gone, roots.tolist(), strict=True) if not plan.removed[root]
    }
