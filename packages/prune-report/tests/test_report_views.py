"""The page, the card and the terminal say what the document says."""

import io
import re
from html.parser import HTMLParser

import pytest
from rich.console import Console
from typer.testing import CliRunner

from prune_core.cli.app import build
from prune_report import card, page, show, write
from prune_report.whole_page import fragment

HOSTILE = '<script>alert("no")</script>'
LONG = "model.decoder.layers.23.mlp.experts.63.down_projection_with_a_long_name"
VOID = {"meta", "br", "hr", "img", "link", "wbr"}


class Checked(HTMLParser):
    """Refuses what is not closed in its order, and notes what the page would load."""

    def __init__(self):
        super().__init__()
        self.open, self.loads, self.tags, self.ids = [], [], [], []

    def handle_starttag(self, tag, attributes):
        said = dict(attributes)
        self.tags.append((tag, said))
        self.loads += [v for k, v in attributes if k in ("src", "href") and not v.startswith("#")]
        if "id" in said:
            self.ids.append(said["id"])
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def checked(html):
    parser = Checked()
    parser.feed(html)
    parser.close()
    assert not parser.open
    return parser


@pytest.mark.parametrize("draw", [page, fragment])
@pytest.mark.parametrize("which", ["full", "bare"])
def test_the_page_is_whole_and_loads_nothing(draw, which, request):
    html = draw(request.getfixturevalue(which))
    parser = checked(html)
    assert not parser.loads
    assert "url(" not in html
    assert "@import" not in html
    assert len(parser.ids) == len(set(parser.ids))
    assert not any(tag in ("script", "iframe", "object") for tag, _ in parser.tags)


def test_names_are_never_markup(full):
    for html in (page(full), fragment(full)):
        assert HOSTILE not in html
        assert "<script" not in html
    assert "&lt;script&gt;" in page(full)


def test_every_picture_says_what_it_shows(full):
    pictures = [said for tag, said in checked(page(full)).tags if tag == "svg" and "role" in said]
    assert len(pictures) > 100
    assert all(each["role"] == "img" and each["aria-label"].strip() for each in pictures)


def test_the_page_names_what_is_in_the_document(full):
    html = page(full)
    for said in (
        "11.7\N{NO-BREAK SPACE}M", "−73.9 %", "10.6\N{NO-BREAK SPACE}ms", "0.9377", "3.9e-07",
        "a batch of 2", "1,323 of 2,400 masked channels stayed", "model.layers.2", "8 → 6 experts",
        "Do this: ", "small.safetensors", "prune_core.load_pruned", "Read this.", "3.11.7",
        "20 trials, of which 1 failed",
    ):  # fmt: skip
        assert said in html, said


def test_channels_that_went_are_shaded_where_they_were(full):
    first = re.search(r'aria-label="layer1.0.conv1: 32 of 64 channels stay".*?</svg>', page(full))
    # Of 64 channels every second one goes, so that 32 pieces stay.
    assert first.group(0).count("pr-kept") == 32


def test_the_card_is_markdown(full, bare):
    text = card(full)
    assert text.startswith("# ResNet & \\<script\\>alert")
    assert "| Parameters | 11.7 M | 3.06 M | 26.1 % |" in text
    assert "| accuracy | 0.9412 | 0.7101 | 0.7101 | 0.9377 |" in text
    assert "```python\nimport prune_core" in text
    assert "more: see report.html." in text
    assert "## What stayed" in text
    assert "Nobody compared" in card(bare)


@pytest.mark.parametrize("which", ["full", "bare"])
@pytest.mark.parametrize("width", [80, 50])
def test_the_terminal_keeps_to_its_width(which, width, request):
    screen = Console(file=io.StringIO(), width=width)
    show(request.getfixturevalue(which), screen)
    lines = screen.file.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    if which == "full":
        said = " ".join(" ".join(lines).split())
        assert "26.1 %" in said
        assert "3.9e-07" in said
        assert "1,323 of 2,400 masked channels stayed" in said
        assert LONG[:20] in said


def test_prune_report_prints_and_writes(full, tmp_path):
    write(full, tmp_path)
    (tmp_path / "report.html").unlink()
    done = CliRunner().invoke(build(), ["report", str(tmp_path)], catch_exceptions=False)
    assert done.exit_code == 0
    assert "26.1 %" in done.output
    assert (tmp_path / "report.html").is_file()


def test_prune_report_shows_without_writing(full, tmp_path):
    write(full, tmp_path)
    (tmp_path / "report.html").unlink()
    done = CliRunner().invoke(build(), ["report", str(tmp_path / "report.json"), "--show"])
    assert done.exit_code == 0
    assert not (tmp_path / "report.html").exists()
