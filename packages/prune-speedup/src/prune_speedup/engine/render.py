"""Units as a tree that a person can read."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prune_speedup.engine.units import Units

__all__ = ["tree"]

_SHOWN = 8


def tree(units: "Units") -> str:
    """One branch per group of units, one leaf per axis that they cut."""
    lines: list[str] = []
    for group in units.groups:
        lines.append(f"{group.name}: {len(group)} unit{'s' if len(group) != 1 else ''}")
        for position, (name, axis) in enumerate(group.axes):
            if position == _SHOWN:
                lines.append(f"└── … and {len(group.axes) - _SHOWN} more")
                break
            last = position == len(group.axes) - 1
            classes = units.axes[name, axis]
            mine = int(sum((classes == label).sum() for label in group.labels[:1]))
            each = f"{mine} indices each" if mine != 1 else "1 index each"
            lines.append(f"{'└' if last else '├'}── {name} axis {axis} of {len(classes)}, {each}")
    lines += [
        f"unknown: {target} in {module or 'the model'}" for target, module in units.unknown.items()
    ]
    if units.unread:
        lines.append(f"not read by the forward: {', '.join(units.unread)}")
    return "\n".join(lines)
