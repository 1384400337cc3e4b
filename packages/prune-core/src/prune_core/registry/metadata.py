"""What a distribution says of itself, read once.

`importlib.metadata` parses the whole METADATA file again for each property asked of it; with
twenty plugins that is most of the time that discovery takes. Only the header is read here.
"""

import re
from dataclasses import dataclass
from email.parser import HeaderParser
from importlib.metadata import Distribution, EntryPoint, entry_points

__all__ = ["Metadata", "canonical", "plugin_entry_points"]

GROUP = "prune_core.plugins"
REQUIREMENT = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:\[[^\]]*\])?\s*(?P<rest>.*)")
PLAIN_VERSION = re.compile(r"\d+(?:\.\d+)*")
PLAIN_CLAUSE = re.compile(r"(?P<operator>>=|<)\s*(?P<version>\d+(?:\.\d+)*)")


def canonical(name: str) -> str:
    """Spell a distribution name the way it is compared (`packaging.utils` is slow to import)."""
    return re.sub(r"[-_.]+", "-", name).lower()


@dataclass(frozen=True, slots=True)
class Metadata:
    """Name, version and requirements of an installed distribution."""

    name: str
    version: str
    requires: tuple[str, ...]

    @classmethod
    def of(cls, distribution: Distribution | None) -> "Metadata":
        """Read the header of a distribution's METADATA."""
        if distribution is None:
            return cls("unknown distribution", "0", ())
        text = distribution.read_text("METADATA") or distribution.read_text("PKG-INFO") or ""
        header = HeaderParser().parsestr(text.partition("\n\n")[0])
        return cls(
            name=header.get("Name", "unknown distribution"),
            version=header.get("Version", "0"),
            requires=tuple(header.get_all("Requires-Dist", ())),
        )

    def unmet(self, name: str, version: str) -> str | None:
        """Return the requirement on the distribution `name` that `version` does not satisfy."""
        for text in self.requires:
            named = REQUIREMENT.match(text)
            if named is None or canonical(named["name"]) != canonical(name):
                continue
            if not (_plainly_met(named["rest"], version) or _met(text, version)):
                return text
        return None


def _plainly_met(specifiers: str, version: str) -> bool:
    """Say yes to the usual `>=0.3,<0.4`, and leave every other verdict to `packaging`.

    Importing `packaging` costs as much as all the rest of discovery.
    """
    if not PLAIN_VERSION.fullmatch(version):
        return False
    clauses = [PLAIN_CLAUSE.fullmatch(clause.strip()) for clause in specifiers.split(",")]
    return all(
        clause is not None
        and (
            _release(version) >= _release(clause["version"])
            if clause["operator"] == ">="
            else _release(version) < _release(clause["version"])
        )
        for clause in clauses
    )


def _release(version: str) -> tuple[int, ...]:
    """Return the numbers of a version without trailing zeros: 0.1 and 0.1.0 are the same."""
    numbers = [int(number) for number in version.split(".")]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


def _met(text: str, version: str) -> bool:
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        requirement = Requirement(text)
    except InvalidRequirement:
        return False
    if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
        return True
    return requirement.specifier.contains(version, prereleases=True)


def plugin_entry_points() -> list[tuple[EntryPoint, Metadata]]:
    """Return the entry points of every installed plugin, in the order of their names."""
    found = [(point, Metadata.of(point.dist)) for point in entry_points(group=GROUP)]
    return sorted(found, key=lambda pair: (canonical(pair[1].name), pair[0].name))
