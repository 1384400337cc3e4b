"""Run checks of a plugin, and report every failure at once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TypeVar

__all__ = ["run_checks"]

_S = TypeVar("_S")


def run_checks(
    name: str,
    checks: Mapping[str, Callable[[_S], None]],
    subject: _S,
    skip: Collection[str] = (),
) -> None:
    """Run checks, each of which raises an `AssertionError` that says what is wrong.

    Args:
        name: What is checked, for the report.
        checks: `{name: check}`.
        subject: What each check is called with.
        skip: Names of checks that do not apply.

    Raises:
        AssertionError: When any check fails; the message lists all that do.
        ValueError: When there is no check of a name in `skip`.

    Example:
        >>> def small(number):
        ...     if number > 9:
        ...         raise AssertionError(f"{number} is not small.")
        >>> run_checks("ten", {"small": small}, 10)
        Traceback (most recent call last):
        AssertionError: ten fails 1 of 1 checks:
          small: 10 is not small.
    """
    unknown = set(skip) - set(checks)
    if unknown:
        raise ValueError(f"There is no check {min(unknown)!r}; the checks are {', '.join(checks)}.")
    failures = {
        check: _failure(function, subject)
        for check, function in checks.items()
        if check not in skip
    }
    broken = {check: failure for check, failure in failures.items() if failure}
    if broken:
        lines = [f"{name} fails {len(broken)} of {len(failures)} checks:"]
        lines += [f"  {check}: {failure}" for check, failure in broken.items()]
        raise AssertionError("\n".join(lines))


def _failure(check: Callable[[_S], None], subject: _S) -> str | None:
    """Run one check and say what went wrong, if anything did."""
    try:
        check(subject)
    except AssertionError as broken:
        return str(broken)
    except Exception as error:
        where = error.__traceback__
        while where is not None and where.tb_next is not None:
            where = where.tb_next
        line = f" (line {where.tb_lineno} of {where.tb_frame.f_code.co_filename})" if where else ""
        return f"raised {type(error).__name__}: {error}{line}"
    return None
