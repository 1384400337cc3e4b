"""Which units can go without changing anything, given what is zero."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from prune_core.errors import SpeedupError
from prune_speedup.engine.labels import Array
from prune_speedup.engine.plan import Flags, Plan
from prune_speedup.engine.propagate import Labelling, Zeros, propagate
from prune_speedup.engine.units import Unit

__all__ = ["labels_of_units", "masked_units", "reasons_for_keeping", "removable"]

_IN_USE = (
    "what they are tied to is not zero, or something makes a constant of their zeros; "
    "compress(example_inputs=...) and constants='zero' mask that too, constants='fold' keeps it"
)


def removable(labelling: Labelling, zeros: Zeros) -> Array:
    """The labels whose units only ever add zeros.

    A unit goes if every sum that runs over it finds it zero: its producers are zero, or its
    consumers ignore it. A unit that a norm runs over must be masked in each of its parameters,
    the norm's own included; then the norm over the live indices is what is meant.
    """
    labels, graph = labelling.labels, labelling.graph
    roots = labels.find(np.arange(len(labels)))
    candidates, closed = masked_units(labelling, zeros)
    if not (candidates & ~closed).any():
        return np.flatnonzero(candidates)
    flow = propagate(graph, zeros, labels).flow
    for _, _, found in flow.leaks or ():
        candidates[roots[found]] = False
    for _, found in labelling.flow.live_norms:
        over = roots[found]
        candidates[over[~closed[over]]] = False
    return np.flatnonzero(candidates[roots] & ~labels.is_fixed(roots))


def masked_units(labelling: Labelling, zeros: Zeros) -> tuple[Flags, Flags]:
    """Which labels could go and are zero somewhere, and which are zero wherever they stand."""
    labels, graph = labelling.labels, labelling.graph
    candidates = ~labels.is_fixed(np.arange(len(labels)))
    roots = labels.find(np.arange(len(labels)))
    touched = np.zeros(len(labels), dtype=np.bool_)
    closed = candidates.copy()
    for value, columns in labelling.axes.items():
        if value not in graph.parameters:
            continue
        for axis, column in enumerate(columns):
            if column is None:
                continue
            zero = zeros.get((value, axis), np.zeros(len(column), dtype=np.bool_))
            touched[roots[column[zero]]] = True
            closed[roots[column[~zero]]] = False
    candidates &= touched[roots]
    return candidates, closed[roots]


def reasons_for_keeping(plan: Plan, zeros: Zeros) -> dict[str, str]:
    """Why slices that are nothing but zeros stay: `{"conv1.weight[0]": reason}`."""
    labels, graph = plan.labelling.labels, plan.labelling.graph
    reasons: dict[str, str] = {}
    for (value, axis), zero in zeros.items():
        column = plan.labelling.axes[value][axis]
        if column is None:
            continue
        stays = column[zero & ~plan.removed[column]]
        if len(stays):
            fixed = stays[labels.is_fixed(stays)]
            why = labels.reason(int(fixed[0])) if len(fixed) else _IN_USE
            reasons[f"{graph.tensors[value][0]}[{axis}]"] = f"{len(stays)} indices: {why}"
    return reasons


def labels_of_units(
    labelling: Labelling, units: Iterable[Unit | Mapping[str, Mapping[int, Iterable[int]]]]
) -> list[int]:
    """The labels of units found on this model, told by the slices that they are made of."""
    graph = labelling.graph
    columns = {
        (name, axis): column
        for value, names in graph.tensors.items()
        for name in names
        for axis, column in enumerate(labelling.axes[value])
    }
    wanted: dict[tuple[str, int], list[int]] = defaultdict(list)
    for unit in units:
        for name, axis, indices in _telling(unit):
            wanted[name, axis] += indices
    chosen: list[int] = []
    for (name, axis), indices in wanted.items():
        column = columns.get((name, axis))
        if column is None:
            raise SpeedupError(f"{name!r} has no axis {axis} that could be cut.")
        beyond = [index for index in indices if not -len(column) <= index < len(column)]
        if beyond:
            raise SpeedupError(
                f"{name!r} has {len(column)} indices along axis {axis}, and index {beyond[0]} is "
                "to go. Were the units found on another model, or before it was made smaller?"
            )
        picked = column[indices]
        fixed = np.flatnonzero(labelling.labels.is_fixed(picked))
        if len(fixed):
            raise SpeedupError(
                f"{name!r} cannot lose index {indices[fixed[0]]} along axis {axis}: "
                f"{labelling.labels.reason(int(picked[fixed[0]]))}."
            )
        chosen += picked.tolist()
    return chosen


def _telling(
    unit: Unit | Mapping[str, Mapping[int, Iterable[int]]],
) -> Iterator[tuple[str, int, Iterable[int]]]:
    """The slices that say which unit is meant: one, since all of a unit is tied together.

    Of slices written down by hand each one counts.
    """
    slices = unit.slices if isinstance(unit, Unit) else unit
    if not isinstance(slices, Mapping):
        raise SpeedupError(
            f"units has {unit!r}; it must be made of units as prune_core.units(model, inputs) "
            "finds them, where units(...).unit(label) gives that of a label, or of slices such "
            "as {'conv1.weight': {0: (3, 5)}}."
        )
    for name, axes in slices.items():
        for axis, indices in axes.items():
            yield name, axis, indices
            if isinstance(unit, Unit):
                return
