"""Write the files of a report, and read one again."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

from prune_core.files import make_folder, replacing
from prune_report.document import Document, ReportError
from prune_report.model_card import card
from prune_report.whole_page import page

__all__ = ["CARD", "DATA", "PAGE", "read", "write"]

DATA, PAGE, CARD = "report.json", "report.html", "model_card.md"


def write(document: Document, folder: str | PathLike[str]) -> list[Path]:
    """Write report.json, report.html and model_card.md into a folder; each appears as a whole.

    Args:
        document: What to write.
        folder: Where; it is made if it is not there.

    Returns:
        The paths of the files.
    """
    # Everything is made before anything is written, so that a failure leaves no half report.
    texts = {DATA: document.to_json(), PAGE: page(document), CARD: card(document)}
    folder = Path(folder)
    make_folder(folder)
    for name, text in texts.items():
        with replacing(folder / name) as file:
            file.write(text.encode())
    return [folder / name for name in texts]


def read(path: str | PathLike[str]) -> Document:
    """Read a report.

    Args:
        path: A report.json, or the folder that holds one.

    Raises:
        ReportError: There is none, or it is damaged.
    """
    path = Path(path)
    file = path / DATA if path.is_dir() else path
    try:
        text = file.read_text("utf-8")
    except FileNotFoundError:
        what = f"{path} holds no {DATA}" if path.is_dir() else f"There is no file {path}"
        raise ReportError(f"{what}; prune_report.write(document, folder) writes one.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ReportError(f"{file} cannot be read: {error}.") from None
    try:
        return Document.from_json(text)
    except ReportError as error:
        raise ReportError(f"{file}: {error}") from None
