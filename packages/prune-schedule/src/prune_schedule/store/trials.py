"""The trials of a run, as data."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from prune_core import ConfigError
from prune_core.files import replacing

__all__ = ["Trials"]


class Trials(list[dict[str, Any]]):
    """A list of dicts, one for each trial: `pandas.DataFrame(trials)` makes a table of it.

    Example:
        >>> trials = Trials([{"trial": 0, "score": 0.9, "sparsities": {"fc": 0.5}}])
        >>> print(trials.to_csv(), end="")
        trial,score,sparsities.fc
        0,0.9,0.5
    """

    @property
    def flat(self) -> list[dict[str, Any]]:
        """The same with a column for each layer where a value is one per layer."""
        return [dict(_flattened(trial)) for trial in self]

    def to_json(self) -> str:
        """Return JSON, an object for each trial."""
        return json.dumps(list(self), indent=2)

    def to_csv(self) -> str:
        """Return CSV with a column for everything that any trial has."""
        rows = self.flat
        columns = list(dict.fromkeys(key for row in rows for key in row))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return text.getvalue()

    def save(self, path: str | PathLike[str]) -> None:
        """Write a file, whose name ends with `.json` or `.csv`.

        Args:
            path: The file to write: JSON, or CSV if its name ends so.
        """
        forms = {".json": self.to_json, ".csv": self.to_csv}
        form = forms.get(Path(path).suffix)
        if form is None:
            raise ConfigError(f"{path}: trials are written to a file that ends with .json or .csv.")
        with replacing(path) as file:
            file.write(form().encode())


def _flattened(trial: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    for key, value in trial.items():
        if isinstance(value, Mapping):
            yield from ((f"{key}.{inner}", number) for inner, number in value.items())
        else:
            yield key, value
