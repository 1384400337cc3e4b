"""Numbers and sentences as people read them, the same in every view."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

from prune_report.document import Change, Document, Latency, Proof, Stayed, Timing

__all__ = [
    "Figure",
    "amount",
    "brief_names",
    "figures",
    "fraction",
    "milliseconds",
    "proof_sentence",
    "quality_value",
    "sentence",
    "size",
    "stayed_count",
]


@dataclass(frozen=True, slots=True)
class Figure:
    """A number before and after, ready to be shown.

    Attributes:
        label: What it is.
        before: Of the dense model.
        after: Of the small one.
        left: The share that is left, between 0 and 1; None if there is none.
        note: What to know of it.
        doubtful: Whether it should not be believed.
    """

    label: str
    before: str
    after: str
    left: float | None
    note: str = ""
    doubtful: bool = False


def figures(document: Document) -> list[Figure]:
    """Return what became smaller: the headline of every view."""
    rows = []
    for label, change, shown in (
        ("Parameters", document.parameters, amount),
        ("FLOPs", document.flops, amount),
        ("Memory", document.bytes, size),
    ):
        if change is not None:
            rows.append(Figure(label, shown(change.before), shown(change.after), _left(change)))
    if (latency := document.latency) is not None:
        change = Change(latency.before.median, latency.after.median)
        rows.append(
            Figure(
                "Latency",
                milliseconds(change.before),
                milliseconds(change.after),
                _left(change),
                _clock(latency),
                latency.noisy,
            )
        )
    if document.activations is not None:
        change = document.activations
        rows.append(Figure("Activations", size(change.before), size(change.after), _left(change)))
    return rows


def _left(change: Change) -> float | None:
    return change.left if isfinite(change.left) else None


def _clock(latency: Latency) -> str:
    said = [latency.device] if latency.device else []
    if runs := min(latency.before.runs, latency.after.runs):
        said.append(f"median of {runs} runs")
    spreads = [_spread(timing) for timing in (latency.before, latency.after)]
    if all(spreads):
        said.append(f"spread {' and '.join(spreads)}")
    text = ", ".join(said)
    if latency.noisy:
        return f"{text}: too noisy to tell them apart" if text else "too noisy to tell them apart"
    return text


def _spread(timing: Timing) -> str:
    if timing.spread is None or not timing.median:
        return ""
    return f"{timing.spread / timing.median:.0%}"


def amount(number: float) -> str:
    """Return a count with three digits.

    >>> [amount(n) for n in (12, 999, 1_000, 999_950, 11_689_512, 3.1e9)]
    ['12', '999', '1,000', '1.00 M', '11.7 M', '3.10 G']
    """
    return (
        _scaled(number, ("", "k", "M", "G", "T", "P"), 1000) if number >= 9999 else f"{number:,.0f}"
    )


def size(bytes_: float) -> str:
    """Return a number of bytes, in units of 1000.

    >>> [size(n) for n in (12, 46_796_608, 12_242_880)]
    ['12 B', '46.8 MB', '12.2 MB']
    """
    return _scaled(bytes_, ("B", "kB", "MB", "GB", "TB", "PB"), 1000)


def _scaled(number: float, units: Sequence[str], step: int) -> str:
    for at, unit in enumerate(units):
        # 999.95 would be shown as 1000.
        if abs(number) < 999.5 or unit == units[-1]:
            digits = 0 if not at or number >= 99.95 else 1 if number >= 9.995 else 2
            return f"{number:,.{digits}f} {unit}".rstrip()
        number /= step
    raise AssertionError


def milliseconds(seconds: float) -> str:
    """Return a time.

    >>> milliseconds(0.01062), milliseconds(2.5)
    ('10.6 ms', '2.50 s')
    """
    if seconds >= 1:
        return f"{seconds:.2f} s"
    thousandths = 1000 * seconds
    return f"{thousandths:.{0 if thousandths >= 99.95 else 1 if thousandths >= 9.995 else 2}f} ms"


def fraction(share: float) -> str:
    """Return a share in per cent.

    >>> fraction(0.2614), fraction(0.00034), fraction(0.9999)
    ('26.1 %', '0.03 %', '99.99 %')
    """
    digits = 1 if 0.001 <= share <= 0.999 or share in (0, 1) else 2
    return f"{100 * share:.{digits}f} %"


def quality_value(value: float | None) -> str:
    """Return a metric, or a dash where it was not evaluated."""
    return "–" if value is None else f"{value:.4g}"


def proof_sentence(proof: Proof) -> str:
    """Return what the comparison found."""
    if proof.difference == 0:
        return "Both gave exactly the same outputs."
    said = f"The largest difference is {proof.difference:.1e} of the output's largest number"
    allowed = "" if proof.tolerance is None else f", where {proof.tolerance:.0e} is allowed"
    return f"{said}{allowed}."


def stayed_count(document: Document) -> str:
    """Return how many masked channels stayed, in words; empty where none is known to have."""
    count = sum(each.channels for each in document.stayed)
    if not count:
        return ""
    of = f" of {document.asked:,}" if document.asked else ""
    return f"{count:,}{of} masked channels stayed"


def brief_names(stayed: Stayed, shown: int = 3) -> str:
    """Return the layers, in a few words."""
    names = [name or "the model itself" for name in stayed.layers]
    more = len(names) - shown
    return ", ".join(names[:shown]) + (f" and {more} more" if more > 0 else "")


def sentence(text: str) -> str:
    """Return a text as a sentence of its own.

    >>> sentence("a layer normalisation runs over them")
    'A layer normalisation runs over them.'
    >>> sentence("constants='zero' removes them")
    "constants='zero' removes them."
    """
    text = text.strip()
    first = text.split(" ", 1)[0]
    if first.isalpha():
        text = text[:1].upper() + text[1:]
    return text if not text or text[-1] in ".!?:" else f"{text}."
