"""From what a user wrote to checked entries."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prune_core.config.keys import PRUNING, Key, Purpose, keys_for
from prune_core.errors import ConfigError, did_you_mean, shown

__all__ = ["Entry", "parse"]

SELECTORS = ("op_types", "op_names", "op_partial_names")


@dataclass(frozen=True, slots=True)
class Entry:
    """One checked entry of a `config_list`.

    Attributes:
        index: Its place in the list.
        op_types: Class names it selects, or None for any.
        op_names: Exact names it selects.
        op_partial_names: Parts of names it selects.
        exclude: Whether it takes out what it selects.
        settings: Every other key, with the three spellings of an amount left as written.
    """

    index: int
    op_types: tuple[str, ...] | None
    op_names: tuple[str, ...]
    op_partial_names: tuple[str, ...]
    exclude: bool
    settings: Mapping[str, Any]

    @property
    def where(self) -> str:
        """How an error message calls this entry."""
        return f"config_list[{self.index}]"


def parse(
    config_list: Sequence[Mapping[str, Any]],
    extra: Iterable[str | Key] = (),
    purpose: Purpose = PRUNING,
) -> list[Entry]:
    """Check every entry on its own; the model is not needed for that.

    Args:
        config_list: What the user wrote.
        extra: The optional keys that the algorithm declares.
        purpose: What the config is for: to prune, or to quantise.

    Raises:
        ConfigError: At the first thing that is wrong, naming entry, key, value and rule.
    """
    if isinstance(config_list, Mapping):
        raise ConfigError("config_list is a dict; it must be a list of dicts: write [{...}].")
    if not isinstance(config_list, list | tuple):
        raise ConfigError(
            f"config_list is {shown(config_list)}; it must be a list of dicts, such as "
            f"[{purpose.example}]."
        )
    if not config_list:
        raise ConfigError(
            f"config_list is empty, so nothing would be {purpose.done}; give it an entry, such as "
            f"{purpose.example}."
        )
    keys = keys_for(extra, purpose)
    return [_entry(index, entry, keys, purpose) for index, entry in enumerate(config_list)]


def _entry(index: int, entry: object, keys: Mapping[str, Key], purpose: Purpose) -> Entry:
    where = f"config_list[{index}]"
    if not isinstance(entry, Mapping):
        raise ConfigError(f"{where} is {shown(entry)}; each entry must be a dict.")
    for name, value in entry.items():
        if name not in keys:
            meant = _meant(name, keys, purpose) if isinstance(name, str) else ""
            raise ConfigError(
                f"{where} has the unknown key {shown(name)}.{meant} Known keys: {', '.join(keys)}."
            )
        expected = keys[name].rule(value)
        if expected is not None:
            raise ConfigError(f"{where}: {name!r} is {shown(value)}; it must be {expected}.")
    if not any(selector in entry for selector in SELECTORS):
        raise ConfigError(
            f"{where} selects nothing; add one of {', '.join(SELECTORS)}, for example "
            "'op_types': ['default']."
        )
    exclude = entry.get("exclude", False)
    settings = {n: v for n, v in entry.items() if n not in (*SELECTORS, "exclude")}
    _check_settings(where, exclude, settings, keys, purpose)
    return Entry(
        index=index,
        op_types=tuple(entry["op_types"]) if "op_types" in entry else None,
        op_names=tuple(entry.get("op_names", ())),
        op_partial_names=tuple(entry.get("op_partial_names", ())),
        exclude=exclude,
        settings=settings,
    )


def _meant(name: str, keys: Mapping[str, Key], purpose: Purpose) -> str:
    meant = purpose.elsewhere.get(name)
    return f" {meant}" if meant else did_you_mean(name, keys)


def _check_settings(
    where: str,
    exclude: bool,
    settings: Mapping[str, Any],
    keys: Mapping[str, Key],
    purpose: Purpose,
) -> None:
    amounts = [name for name in settings if keys[name].is_amount]
    known = [name for name, key in keys.items() if key.is_amount]
    if exclude:
        if settings:
            name = next(iter(settings))
            raise ConfigError(
                f"{where}: 'exclude' is True and {name!r} is {shown(settings[name])}; what is "
                f"excluded is not {purpose.done}, so remove one of the two."
            )
        return
    if not amounts:
        raise ConfigError(
            f"{where} does not say {purpose.asks}; add one of {', '.join(known)}, or "
            "'exclude': True."
        )
    if len(amounts) > 1:
        said = " and ".join(f"{name!r}: {shown(settings[name])}" for name in amounts)
        raise ConfigError(f"{where} says {purpose.asks} more than once ({said}); keep one.")
    purpose.check(where, settings, keys)
