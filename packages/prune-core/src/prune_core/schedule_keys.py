"""Split a `config_list` with schedule keys into timetables and rules for the one-shot pruner."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from prune_core.config import Entry
from prune_core.errors import ConfigError
from prune_core.timetable import Timetable, Unit

__all__ = ["SCHEDULE_KEYS", "timetables", "without_schedule"]

SCHEDULE_KEYS = (
    "initial_sparsity",
    "final_sparsity",
    "start_epoch",
    "end_epoch",
    "start_step",
    "end_step",
    "frequency",
)
_UNITS: tuple[Unit, ...] = ("epoch", "step")


def timetables(entries: Sequence[Entry], rounds: int | None) -> dict[int, Timetable]:
    """Return the timetable of each entry, by its index; entries that exclude have none.

    Args:
        entries: Checked entries.
        rounds: After how many rounds the final sparsity is reached, or None where training drives
            the schedule and the entries say when.

    Raises:
        ConfigError: When an entry does not say when, or says it in two ways.
    """
    return {entry.index: _growth(entry, rounds) for entry in entries if not entry.exclude}


def _growth(entry: Entry, rounds: int | None) -> Timetable:
    settings = entry.settings
    final = float(next(settings[key] for key in _AMOUNTS if key in settings))
    initial = float(settings.get("initial_sparsity", 0.0))
    if initial > final:
        raise ConfigError(
            f"{entry.where}: 'initial_sparsity' is {initial:g}, more than the final sparsity "
            f"{final:g}; sparsity only grows."
        )
    if rounds is not None:
        return _in_rounds(entry, initial, final, rounds)
    unit = _unit(entry)
    if f"end_{unit}" not in settings:
        raise ConfigError(
            f"{entry.where} has 'start_{unit}' but no 'end_{unit}'; the final sparsity is reached "
            "before it."
        )
    start, end = settings.get(f"start_{unit}", 0), settings[f"end_{unit}"]
    return Timetable(initial, final, start, end, settings.get("frequency", 1), unit)


def _in_rounds(entry: Entry, initial: float, final: float, rounds: int) -> Timetable:
    clock = [key for key in (*_SPANS, "frequency") if key in entry.settings]
    if clock:
        raise ConfigError(
            f"{entry.where} has {clock[0]!r}, and total_iteration is {rounds}. Leave out "
            "total_iteration to prune during your training, or the key to let the pruner run its "
            "rounds by itself."
        )
    return Timetable(initial, final, 0, rounds + 1)


def _unit(entry: Entry) -> Unit:
    units = [u for u in _UNITS if f"start_{u}" in entry.settings or f"end_{u}" in entry.settings]
    if len(units) == 2:
        raise ConfigError(f"{entry.where} counts both epochs and steps; keep one of the two.")
    if not units:
        raise ConfigError(
            f"{entry.where} does not say when its sparsity is reached. Add 'end_epoch' or "
            "'end_step' to prune during your training, or give the pruner total_iteration to let "
            "it run its rounds by itself."
        )
    return units[0]


_SPANS = tuple(f"{place}_{unit}" for unit in _UNITS for place in ("start", "end"))
_AMOUNTS = ("sparsity", "sparsity_per_layer", "total_sparsity", "final_sparsity")


def without_schedule(config_list: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the same entries as a one-shot pruner understands them."""
    plain = []
    for entry in config_list:
        rest = {key: value for key, value in entry.items() if key not in SCHEDULE_KEYS}
        if "final_sparsity" in entry:
            rest["sparsity"] = entry["final_sparsity"]
        plain.append(rest)
    return plain
