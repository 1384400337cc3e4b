"""Names, versions and requirements, read without `importlib.metadata`."""

import pytest
from packaging.requirements import Requirement

from prune_core.registry.metadata import Metadata, canonical

TEXT = """\
Metadata-Version: 2.4
Name: Acme.Prune
Version: 1.2
Summary: Says: colons, too
Requires-Dist: prune-core[torch]<0.2,>=0.1
Requires-Dist: rich; extra == "cli"

Name: what a README says is no metadata
"""


def test_the_header_is_read_and_the_readme_is_not():
    assert Metadata.parse(TEXT) == Metadata(
        "Acme.Prune", "1.2", ("prune-core[torch]<0.2,>=0.1", 'rich; extra == "cli"')
    )


def test_an_empty_file_gives_an_unknown_distribution():
    assert Metadata.parse("") == Metadata("unknown distribution", "0", ())


@pytest.mark.parametrize("name", ["prune-core", "Prune_Core", "prune.core", "prune--core"])
def test_names_are_compared_in_one_spelling(name):
    assert canonical(name) == "prune-core"


@pytest.mark.parametrize("version", ["0.1", "0.1.0", "0.2.0.dev0", "0.2", "0.2.1", "1.0rc1", "1"])
@pytest.mark.parametrize(
    "specifier",
    ["", ">=0.1", ">=0.1,<0.2", ">= 0.1.0, <0.2.0", "~=0.1", "==0.1.*", "!=0.2", "<1,>=0.2.0.dev0"],
)
def test_verdicts_are_those_of_packaging(specifier, version):
    text = f"prune-core[torch]{specifier}"
    expected = Requirement(text).specifier.contains(version, prereleases=True)
    assert (Metadata(requires=(text,)).unmet("prune-core", version) is None) == expected


def test_a_requirement_of_another_extra_or_distribution_does_not_count():
    requires = ('prune-core>=9; extra == "future"', "prune-core-tools>=9", "rich>=9")
    assert Metadata(requires=requires).unmet("prune-core", "0.1") is None


def test_a_requirement_nobody_can_read_is_not_met():
    text = "prune-core at least 3"
    assert Metadata(requires=(text,)).unmet("prune-core", "0.1") == text
