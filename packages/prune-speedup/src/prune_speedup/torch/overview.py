"""What a person wants to know first of a smaller model, on one screen."""

from __future__ import annotations

from textwrap import wrap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prune_speedup.torch.measure import Running
    from prune_speedup.torch.report import SpeedupReport

__all__ = ["DONE", "first_screen"]

DONE = {
    "exact": "moved into biases",
    "keep": "kept",
    "fold": "folded",
    "zero": "zeroed",
    "remove": "removed",
}
"""What became of constants, by what was chosen."""

_WIDTH = 80
_LABEL = 12
_SHOWN = 4


def first_screen(report: SpeedupReport) -> str:
    """Return sizes before and after, how exact it is, and what stayed and what to do about it."""
    rows = [("", f"{'before':>16} {'after':>16} {'left':>8}"), *_sizes(report)]
    rows += [("" if at else "compared", line) for at, line in enumerate(_compared(report))]
    if report.moved:
        rows.append(
            (
                "constants",
                f"{DONE[report.constants]}, which moved the output by {report.moved:.1e} of its "
                "largest number",
            )
        )
    rows += _stayed(report)
    if report.config is not None and (lines := report.config.lines()):
        rows.append(("config", ", ".join(lines)))
    if report.changes:
        rows.append(("details", f"{len(report.changes)} smaller tensors: print(report.table())"))
    return "\n".join(line for label, text in rows for line in _lines(label, text))


def _sizes(report: SpeedupReport) -> list[tuple[str, str]]:
    counts = {"parameters": report.parameters, "FLOPs": report.flops, "bytes": report.bytes}
    rows = [(name, _row(f"{b:,}", f"{a:,}", b, a)) for name, (b, a) in counts.items()]
    if report.running is not None:
        before, after = (1000 * seconds for seconds in report.running.seconds)
        rows.append(("latency", _row(f"{before:.2f} ms", f"{after:.2f} ms", before, after)))
        rows.append(("", _clock(report.running)))
        if report.running.slower:
            rows.append(("", _SLOWER))
    return rows


_SLOWER = (
    "the small model is slower here: odd widths are the usual cause; prune with round_to=8, or to "
    'target={"latency": 0.9}, which measures'
)


def _clock(running: Running) -> str:
    """How far the measured time can be believed."""
    first, second = (
        f"{spread / seconds:.0%}"
        for spread, seconds in zip(running.spread, running.seconds, strict=True)
    )
    said = f"medians of {running.runs} runs that spread by {first} and {second}"
    return f"{said}: too noisy to tell them apart" if running.noisy else said


def _row(before: str, after: str, whole: float, part: float) -> str:
    share = f"{part / whole:.1%}" if whole else "-"
    return f"{before:>16} {after:>16} {share:>8}"


def _compared(report: SpeedupReport) -> list[str]:
    if report.comparison is None:
        return ["nothing: verify=False"]
    allowed = report.comparison.tolerance
    lines = [f"largest difference {report.difference:.1e}, where {allowed:.0e} is allowed"]
    lines.append("on " + ", ".join(report.verified))
    if report.uncompared:
        lines.append(f"but not inside of {', '.join(report.uncompared)}")
    return lines


def _stayed(report: SpeedupReport) -> list[tuple[str, str]]:
    """What is not as small as it was meant to be, cause by cause."""
    rows = []
    if report.kept:
        stays = sum(each.channels for each in report.kept)
        rows.append(("stays", f"{stays:,} of {report.asked:,} masked channels"))
        rows += [("", f"- {each}") for each in report.kept[:_SHOWN]]
        if report.kept[_SHOWN:]:
            rows.append(("", f"- and {len(report.kept) - _SHOWN} more causes"))
    if report.form == "graph":
        rows.append(("form", f"a graph, not the model given: {report.cause}"))
    if report.unknown:
        names = ", ".join(report.unknown)
        rows.append(("unknown", f"operators without a rule keep what they touch: {names}"))
    return rows


def _lines(label: str, text: str) -> list[str]:
    indent = "  " if text.startswith("- ") else ""
    first, *others = wrap(
        text, _WIDTH - _LABEL, subsequent_indent=indent, break_on_hyphens=False
    ) or [""]
    return [f"{label:{_LABEL}}{first}", *(f"{'':{_LABEL}}{line}" for line in others)]
