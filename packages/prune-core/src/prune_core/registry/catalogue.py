"""From a name that a user typed to the one thing it means."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from prune_core.errors import (
    AmbiguousNameError,
    PluginError,
    PruneError,
    UnknownNameError,
    did_you_mean,
)
from prune_core.reference import Reference
from prune_core.registry.directory import distributions_of
from prune_core.registry.discovery import KINDS, Plugin
from prune_core.registry.metadata import canonical

__all__ = ["Entry", "find", "listed"]


@dataclass(frozen=True)
class Entry:
    """One registered name, and the plugin it comes from."""

    kind: str
    name: str
    reference: Reference
    plugin: Plugin

    @property
    def qualified_name(self) -> str:
        """The name that stays unambiguous whatever else is installed."""
        return f"{self.plugin.distribution}:{self.name}"

    def load(self) -> Any:
        """Import and return what is registered; a failure names the plugin."""
        try:
            return self.reference.load()
        except Exception as error:
            cause = "" if isinstance(error, PruneError) else f"{type(error).__name__}: "
            raise PluginError(
                f"{self.kind} {self.name!r} of {self.plugin.distribution} {self.plugin.version} "
                f"cannot be imported: {cause}{error}"
            ) from error


def listed(plugins: Iterable[Plugin], kind: str | None = None) -> Iterator[Entry]:
    """Yield every registered name, of one kind or of all."""
    if kind is not None and kind not in KINDS:
        raise UnknownNameError(
            f"There is no kind {kind!r}; the kinds are {', '.join(KINDS)}."
            f"{did_you_mean(kind, KINDS)}"
        )
    for plugin in plugins:
        for its_kind, references in plugin.provides.items():
            if kind in (None, its_kind):
                for name, reference in references.items():
                    yield Entry(its_kind, name, reference, plugin)


def find(
    plugins: Iterable[Plugin], kind: str | None, name: str, framework: str | None = None
) -> Entry:
    """Return what a bare or qualified name means.

    A name that exists for several frameworks means torch's, unless `framework` says otherwise;
    without a kind, a name that exists for several means a pruner before a quantizer, that before a
    schedule, and that before a part.
    """
    plugins = tuple(plugins)
    noun = kind or "pruner, quantizer, schedule or part"
    if not isinstance(name, str):
        raise UnknownNameError(f"The name of a {noun} is a string, not {name!r}.")
    owner, _, bare = name.rpartition(":")
    entries = list(listed(plugins, kind))
    candidates = [
        entry
        for entry in entries
        if entry.name == bare and owner in ("", entry.plugin.distribution)
    ] or [
        entry
        for entry in entries
        if entry.name == bare and canonical(owner) == canonical(entry.plugin.distribution)
    ]
    first = min((KINDS.index(entry.kind) for entry in candidates), default=0)
    candidates = [entry for entry in candidates if entry.kind == KINDS[first]]
    if framework is not None:
        wanted = [e for e in candidates if e.reference.framework in ("", framework)]
        if candidates and not wanted:
            there = ", ".join(sorted({e.reference.framework for e in candidates}))
            ours = ", ".join(sorted({e.name for e in entries if _is_for(e, framework)}))
            raise UnknownNameError(
                f"{noun} {name!r} exists for {there}, not for {framework}. For {framework} there "
                f"are {ours}."
            )
        candidates = wanted
    elif len({e.reference.framework for e in candidates}) > 1:
        candidates = [e for e in candidates if e.reference.framework in ("", "torch")]
    if len(candidates) == 1:
        return candidates[0]
    if candidates:
        claims = " and ".join(f"{e.plugin.distribution} {e.plugin.version}" for e in candidates)
        ways = " or ".join(repr(e.qualified_name) for e in candidates)
        raise AmbiguousNameError(f"{noun} {name!r} is claimed by {claims}. Write {ways}.")
    raise UnknownNameError(_unknown(plugins, kind, name, owner, bare, entries, framework))


def _unknown(
    plugins: tuple[Plugin, ...],
    kind: str | None,
    name: str,
    owner: str,
    bare: str,
    entries: list[Entry],
    framework: str | None,
) -> str:
    noun = kind or "pruner, quantizer, schedule or part"
    message = [f"There is no {noun} {name!r}."]
    owners = [p for p in plugins if canonical(p.distribution) == canonical(owner)]
    installed = {canonical(p.distribution) for p in plugins if not p.disabled}
    if owner and not owners:
        hint = did_you_mean(owner, [p.distribution for p in plugins])
        message.append(f"No plugin named {owner!r} is installed.{hint}")
    for plugin in owners:
        if plugin.disabled:
            message.append(f"{plugin.distribution} is switched off by PRUNE_DISABLED_PLUGINS.")
        elif plugin.error is not None:
            message.append(f"{plugin.distribution} is left out: {plugin.error}")
    message.extend(
        f"`pip install {distribution}` brings it."
        for distribution in distributions_of(kind, bare)
        if distribution not in installed
    )
    there = sorted({e.name for e in entries if _is_for(e, framework)})
    hint = did_you_mean(bare, there)
    if hint:
        message.append(hint.strip())
    of = f" for {framework}" if framework else ""
    message.append(
        f"Registered{of}: {', '.join(there)}." if there else f"No {noun} is registered{of}."
    )
    if others := sorted({e.reference.framework for e in entries if not _is_for(e, framework)}):
        close = did_you_mean(bare, {e.name for e in entries} - {*there})
        message.append(f"`prune list` shows those that exist for {' and '.join(others)} only.")
        message += [close.strip()] if close and not hint else []
    return " ".join(message)


def _is_for(entry: Entry, framework: str | None) -> bool:
    return framework is None or entry.reference.framework in ("", framework)
