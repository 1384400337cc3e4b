"""A document is written as JSON and read again, strictly."""

import json

import pytest

from prune_core.errors import PruneError
from prune_report import FORMAT, Change, Document, Indices, Quality, ReportError, read, write


def test_everything_comes_back(full):
    assert Document.from_json(full.to_json()) == full


def test_what_is_not_said_is_not_written(bare):
    assert json.loads(bare.to_json()) == {
        "title": "Net",
        "format": FORMAT,
        "parameters": {"before": 10, "after": 10},
    }


def test_numbers_that_json_lacks_come_back():
    document = Document("x", quality=(Quality("loss", float("inf"), small=float("-inf")),))
    text = document.to_json()
    assert "Infinity" not in text
    assert Document.from_json(text) == document


@pytest.mark.parametrize("numbers", [(), (0,), (0, 1, 2), (1, 3, 4, 9)])
def test_indices_are_read_as_they_were_written(numbers):
    assert Indices.read(Indices(numbers).ranges()) == numbers


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "not JSON"),
        ("[]", "no report"),
        ("{}", "no report"),
        ('{"format": true, "title": "x"}', "no report"),
        (f'{{"format": {FORMAT + 1}, "title": "x"}}', "pip install --upgrade prune-report"),
        ('{"format": 0, "title": "x"}', "format 0"),
        ('{"format": 1}', "no 'title'"),
        ('{"format": 1, "title": "x", "layer": []}', "Did you mean 'layers'?"),
        ('{"format": 1, "title": 3}', "title is 3; it must be a text"),
        ('{"format": 1, "title": "x", "asked": 1.5}', "asked is 1.5; it must be a whole number"),
        ('{"format": 1, "title": "x", "asked": true}', "asked is True"),
        ('{"format": 1, "title": "x", "parameters": {"before": NaN, "after": 1}}', "NaN"),
        (
            '{"format": 1, "title": "x", "parameters": {"before": "many", "after": 1}}',
            "parameters.before is 'many'; it must be a number",
        ),
        (
            '{"format": 1, "title": "x", "experts": [{"name": "a", "removed": "5-2", '
            '"experts": {"before": 8, "after": 6}}]}',
            r"experts\[0\].removed is '5-2'",
        ),
        (
            '{"format": 1, "title": "x", "experts": [{"name": "a", "removed": "0-99999999999", '
            '"experts": {"before": 8, "after": 6}}]}',
            "ascending ranges",
        ),
        (
            '{"format": 1, "title": "x", "sensitivity": [{"layer": "a", "points": [[1]]}]}',
            r"sensitivity\[0\].points\[0\] is \[1\]; it must be a list of 2",
        ),
    ],
)
def test_what_is_wrong_is_named(text, said):
    with pytest.raises(ReportError, match=said):
        Document.from_json(text)


def test_files_are_read_from_their_folder(full, tmp_path):
    paths = write(full, tmp_path / "new" / "folder")
    assert [path.name for path in paths] == ["report.json", "report.html", "model_card.md"]
    assert all(path.is_file() for path in paths)
    assert read(tmp_path / "new/folder") == read(paths[0]) == full


def test_a_failure_writes_nothing(full, tmp_path, monkeypatch):
    monkeypatch.setattr("prune_report.writing.card", lambda document: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write(full, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_report_that_is_not_there(tmp_path):
    with pytest.raises(PruneError, match=r"holds no report\.json"):
        read(tmp_path)
    with pytest.raises(PruneError, match="There is no file"):
        read(tmp_path / "x.json")
    (tmp_path / "report.json").write_bytes(b"\xff\xfe")
    with pytest.raises(PruneError, match="cannot be read"):
        read(tmp_path)


def test_what_is_left_of_nothing():
    assert Change(0, 0).left != Change(0, 0).left
