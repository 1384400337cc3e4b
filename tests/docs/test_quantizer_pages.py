"""Each registered quantizer has its place on the page, with formula, example and paper."""

import re
from pathlib import Path

import pytest

from prune_core import entries

PAGE = (Path(__file__).resolve().parents[2] / "docs/algorithms/quantizers.md").read_text()
QUANTIZERS = [e for e in entries("quantizer") if e.plugin.distribution == "prune-quant"]


def test_there_are_quantizers_to_look_at():
    assert len(QUANTIZERS) == 6


@pytest.mark.parametrize("entry", QUANTIZERS, ids=lambda entry: entry.name)
def test_a_quantizer_is_on_the_page(entry):
    name = entry.load().__name__
    assert re.search(rf"^\| `{entry.name}` \| `{name}` \|", PAGE, re.MULTILINE)
    assert f"{name}(" in PAGE
    assert entry.reference.paper in PAGE
    sections = re.split(r"^## ", PAGE, flags=re.MULTILINE)
    [section] = [text for text in sections if text.lower().startswith(f"{entry.name}\n")]
    assert "```text" in section
