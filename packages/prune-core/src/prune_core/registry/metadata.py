"""What an installed distribution says of itself: its name, its version, what it requires."""

import re
from dataclasses import dataclass

__all__ = ["Metadata", "canonical"]

UNKNOWN = "unknown distribution"
REQUIREMENT = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:\[[^\]]*\])?\s*(?P<rest>.*)")
PLAIN_VERSION = re.compile(r"\d+(?:\.\d+)*")
OF_AN_EXTRA = re.compile(r"""[^;]*;\s*extra\s*==\s*['"][^'"]*['"]\s*""")
PLAIN_CLAUSE = re.compile(r"(?P<operator>>=|<)\s*(?P<version>\d+(?:\.\d+)*)")


def canonical(name: str) -> str:
    """Spell a distribution name the way it is compared (`packaging.utils` is slow to import)."""
    return re.sub(r"[-_.]+", "-", name).lower()


@dataclass(frozen=True, slots=True)
class Metadata:
    """Name, version and requirements of an installed distribution."""

    name: str = UNKNOWN
    version: str = "0"
    requires: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> "Metadata":
        """Read the header of a METADATA file; what follows the first empty line is a README."""
        fields: dict[str, list[str]] = {}
        for line in text.partition("\n\n")[0].splitlines():
            key, colon, value = line.partition(":")
            if colon:
                fields.setdefault(key.strip().lower(), []).append(value.strip())
        return cls(
            name=fields.get("name", [UNKNOWN])[0],
            version=fields.get("version", ["0"])[0],
            requires=tuple(fields.get("requires-dist", ())),
        )

    def unmet(self, name: str, version: str) -> str | None:
        """Return the requirement on the distribution `name` that `version` does not satisfy."""
        for text in self.requires:
            named = REQUIREMENT.match(text)
            if named is None or canonical(named["name"]) != canonical(name):
                continue
            if OF_AN_EXTRA.fullmatch(text):  # asked for only by whoever names the extra
                continue
            if not (_plainly_met(named["rest"], version) or _met(text, version)):
                return text
        return None


def _plainly_met(specifiers: str, version: str) -> bool:
    """Say yes to the usual `>=0.3,<0.4`, and leave every other verdict to `packaging`.

    Importing `packaging` costs as much as all the rest of discovery.
    """
    if not specifiers:
        return True
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
