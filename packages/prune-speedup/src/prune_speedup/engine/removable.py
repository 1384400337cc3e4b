"""Which labels belong to the units that a user names."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from prune_core.errors import SpeedupError, shown
from prune_speedup.engine.propagate import Labelling
from prune_speedup.engine.units import Unit

__all__ = ["labels_of_units"]


def labels_of_units(
    labelling: Labelling,
    units: Iterable[Unit | Mapping[str, Mapping[int, Iterable[int]]]],
    *,
    skip: bool = False,
) -> list[int]:
    """The labels of units found on this model, told by the slices that they are made of.

    Args:
        labelling: Of the model.
        units: What is to go.
        skip: Whether to leave out what has to stay, instead of refusing it.
    """
    if not isinstance(units, Iterable):
        raise SpeedupError(f"units is {shown(units)}; it must be a list of units.")
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
        if len(fixed) and not skip:
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
