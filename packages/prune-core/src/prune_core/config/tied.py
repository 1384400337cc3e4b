"""Layers that share a tensor, such as a language model's embedding and its head.

A mask on one of them would be none on the other. So such a layer stays dense when an entry selects
it by its type, as it does every layer of that type; who selects it by name is told that it cannot
be done.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from prune_core.config.parse import Entry
from prune_core.errors import ConfigError, warn

__all__ = ["leave_out_tied"]


def leave_out_tied(
    settings: Mapping[str, Mapping[str, Any]],
    entries: Sequence[Entry],
    sharing: Mapping[str, tuple[str, Sequence[str]]],
) -> set[str]:
    """Return the selected modules that stay dense for what they share, and say which.

    Args:
        settings: What `match` returns.
        entries: The checked `config_list`.
        sharing: `{module: (its tensor, the other places where that tensor is)}`.

    Raises:
        ConfigError: One of them was selected by name, or nothing else was selected.
    """
    tied = {name: sharing[name] for name in settings if sharing.get(name, ("", ()))[1]}
    by_index = {entry.index: entry for entry in entries}
    for name, (tensor, others) in tied.items():
        entry = by_index[settings[name]["entry"]]
        named = name in entry.op_names or any(part in name for part in entry.op_partial_names)
        if named or len(tied) == len(settings):
            raise ConfigError(
                f"{tensor} is one tensor with {' and '.join(others)}, which would stay dense while "
                f"{name!r} is masked. Leave {name!r} out with {{'exclude': True, 'op_names': "
                f"[{name!r}]}}, or untie the two."
            )
    if tied:
        name, (tensor, others) = next(iter(tied.items()))
        more = f" So do {len(tied) - 1} more, for the same reason." if len(tied) > 1 else ""
        warn(
            f"{name!r} stays dense: {tensor} is one tensor with {' and '.join(others)}.{more} "
            f"{{'exclude': True, 'op_names': {[*tied]}}} says that it is meant."
        )
    return {*tied}
