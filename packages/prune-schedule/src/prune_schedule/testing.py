"""`check_search`: what every search keeps to, checked on a toy."""

from __future__ import annotations

import json
import tempfile
import warnings
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from prune_core import ChannelPruner, shrink
from prune_core.testing import ConvNet, make_batch, make_toy, run_checks
from prune_schedule.run.result import Result
from prune_schedule.search.base import SearchPruner
from prune_toolkit import (
    DataCollector,
    MetricsCalculator,
    NormMetricsCalculator,
    WeightDataCollector,
)

__all__ = ["CHECKS", "check_search"]

RATIO = 0.5
LEFT = 0.6


class _Smallest(ChannelPruner):
    """Prunes the channels with the smallest weights, so that no plugin is needed for a check."""

    def collector(self) -> DataCollector:
        return WeightDataCollector(self, channels=True)

    def calculator(self) -> MetricsCalculator:
        return NormMetricsCalculator(dim=0, p=1.0)


@dataclass
class _Run:
    """One search on a model of its own.

    Attributes:
        stop_at: In which evaluation Ctrl-C is pressed; counted from 0.
        fail_at: Which evaluation raises an error.
        sign: -1 to let a lower score be the better one.
    """

    subject: _Subject
    options: Mapping[str, Any]
    stop_at: int | None = None
    fail_at: int | None = None
    sign: int = 1
    evaluated: int = 0
    search: Any = field(init=False)
    model: nn.Module = field(init=False)
    before: dict[str, Tensor] = field(init=False)

    def __post_init__(self) -> None:
        self.model = make_toy(self.subject.model)
        self.before = {name: value.clone() for name, value in self.model.state_dict().items()}
        self._images, _ = make_batch(self.subject.model)
        self.model.eval()
        with torch.no_grad():
            self._dense = self.model(self._images)
        rule = {"op_types": ["Conv2d"], **self.subject.config}
        if "target" not in self.options:
            rule["sparsity"] = RATIO
        given = {"pruning_algorithm": _Smallest, **self.subject.arguments, **self.options}
        self.search = self.subject.search(self.model, [rule], self.evaluate, **given)

    def evaluate(self, model: nn.Module) -> float:
        number, self.evaluated = self.evaluated, self.evaluated + 1
        if number == self.stop_at:
            raise KeyboardInterrupt
        if number == self.fail_at:
            raise RuntimeError("a trial that fails")
        return self.sign * self.score()

    def score(self) -> float:
        with torch.no_grad():
            return -float((self.model(self._images) - self._dense).square().mean())

    def run(self) -> Result:
        result: Result = self.search.run()
        return result

    def changed(self) -> list[str]:
        """Return what has other values than before, unwrapped or not."""
        with self.search.plain() as model:
            now = model.state_dict()
        return [name for name, value in self.before.items() if not torch.equal(value, now[name])]


@dataclass(frozen=True)
class _Subject:
    search: Callable[..., Any]
    model: Any
    config: Mapping[str, Any]
    arguments: Mapping[str, Any]

    def make(self, **how: Any) -> _Run:
        runs = {name: how.pop(name) for name in ("stop_at", "fail_at", "sign") if name in how}
        return _Run(self, how, **runs)


def _expect(kept: bool, otherwise: str) -> None:
    if not kept:
        raise AssertionError(otherwise)


def _plans(result: Result) -> list[Any]:
    return [trial["sparsities"] for trial in result.trials]


def _end_is_what_was_found(subject: _Subject) -> None:
    """The result is in force, has a score, and the score is that of what is in force."""
    run = subject.make()
    result = run.run()
    _expect(result.complete, "the search did not come to its end.")
    if result.score is None:
        raise AssertionError("the result has no score: give it to keep().")
    scores = [trial["score"] for trial in result.trials]
    _expect(result.score in scores, f"the score {result.score} is of no trial: {scores}.")
    _expect(
        abs(run.score() - result.score) <= 1e-6 * max(1.0, abs(result.score)),
        f"the score is {result.score}, and the model in force scores {run.score()}.",
    )


def _budget_is_kept(subject: _Subject) -> None:
    """As many weights as the rules say are masked, and no layer loses more than it may."""
    run = subject.make()
    result = run.run()
    missed = run.search.budget.shortfall(result.sparsities)
    _expect(missed is None, f"{missed}: plan with self.budget.fitted().")
    over = {n: s for n, s in result.sparsities.items() if s > run.search.caps[n] + 1e-9}
    _expect(not over, f"these lose more than they may, see self.caps: {over}.")


def _target_is_met(subject: _Subject) -> None:
    """With a target, the model that `shrink` makes is as small as was asked for."""
    example = make_batch(subject.model, 1)[0]
    run = subject.make(target={"parameters": LEFT}, dummy_input=example)
    result = run.run()
    run.search.unwrap()
    before, after = shrink(run.model, example, result.masks).parameters
    _expect(
        after / before <= LEFT + 1e-9,
        f"target={{'parameters': {LEFT}}} leaves {after / before:.3f}: plan with "
        "self.budget.fitted().",
    )


def _weights_stay(subject: _Subject) -> None:
    """A search that is given nothing to train with changes no weight."""
    run = subject.make()
    run.run()
    changed = run.changed()
    _expect(not changed, f"{', '.join(changed)} have other values after the search.")


def _same_seed_same_plans(subject: _Subject) -> None:
    """Two runs with one seed try the same, whatever else draws random numbers."""
    first = subject.make().run()
    torch.rand(3)
    second = subject.make().run()
    _expect(
        _plans(first) == _plans(second),
        "two runs with one seed try different plans: draw from random.Random(self.seed).",
    )


def _search_goes_on(subject: _Subject) -> None:
    """After Ctrl-C the same call goes on, evaluates nothing twice, and ends the same."""
    whole = subject.make()
    expected = whole.run()
    for stop_at in sorted({1, whole.evaluated // 2, whole.evaluated - 1}):
        with tempfile.TemporaryDirectory() as folder:
            kept = {"checkpoint": Path(folder) / "search.json"}
            stopped = subject.make(stop_at=stop_at, **kept)
            try:
                result = stopped.run()
            except KeyboardInterrupt:  # there was no result yet
                result = None
            _expect(
                result is None or not result.complete,
                f"Ctrl-C in evaluation {stop_at} is taken for the end of the search.",
            )
            changed = stopped.changed()
            _expect(not changed, f"after Ctrl-C, {', '.join(changed)} have other values.")
            rest = subject.make(**kept)
            found = rest.run()
            made = stop_at + rest.evaluated
            _expect(
                made == whole.evaluated,
                f"stopped in evaluation {stop_at}, {made} evaluations are made in all instead of "
                f"{whole.evaluated}: plans() must depend on the seed and the scores alone.",
            )
            _expect(
                _plans(found) == _plans(expected) and found.score == expected.score,
                f"stopped in evaluation {stop_at}, the search ends elsewhere: plans() must depend "
                "on the seed and the scores alone, and begin anew each time that it is called.",
            )


def _lower_may_be_better(subject: _Subject) -> None:
    """`optimize_mode="minimize"` with the negative score tries the same."""
    up, down = subject.make().run(), subject.make(sign=-1, optimize_mode="minimize").run()
    _expect(
        _plans(up) == _plans(down),
        "optimize_mode='minimize' with the negative score tries other plans; a score that is sent "
        "to plans() is always the higher the better.",
    )
    _expect(up.score == -(down.score or 0.0), f"the scores are {up.score} and {down.score}.")


def _trial_may_fail(subject: _Subject) -> None:
    """A trial that fails, whose score is None, does not stop the search or become its result."""
    number = subject.make()
    number.run()
    run = subject.make(fail_at=number.evaluated // 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = run.run()
    failed = [trial for trial in result.trials if trial["score"] is None]
    _expect(bool(failed), "a trial whose evaluation raises has a score.")
    _expect(result.score is not None, "the search ends with a trial that failed.")


def _settings_are_plain(subject: _Subject) -> None:
    """`settings` is plain data, the same for the same call."""
    first, second = subject.make().search.settings, subject.make().search.settings
    try:
        text = json.dumps(first)
    except (TypeError, ValueError) as error:
        raise AssertionError(f"settings is no plain data: {error}.") from error
    _expect(text == json.dumps(second), f"settings are {first} and {second} for one call.")


def _length_is_right(subject: _Subject) -> None:
    """`length` is None, or as many trials as are made."""
    run = subject.make()
    said, result = run.search.length, run.run()
    _expect(
        said in (None, len(result.trials)),
        f"length is {said}, and {len(result.trials)} trials are made.",
    )


CHECKS: Mapping[str, Callable[[_Subject], None]] = {
    "result": _end_is_what_was_found,
    "budget": _budget_is_kept,
    "target": _target_is_met,
    "weights": _weights_stay,
    "determinism": _same_seed_same_plans,
    "resume": _search_goes_on,
    "minimize": _lower_may_be_better,
    "failure": _trial_may_fail,
    "settings": _settings_are_plain,
    "length": _length_is_right,
}


def check_search(
    search: type[SearchPruner] | Callable[..., SearchPruner],
    *,
    model: Any = ConvNet,
    config: Mapping[str, Any] | None = None,
    skip: Collection[str] = (),
    **arguments: Any,
) -> None:
    """Check that a search keeps what every search promises.

    Each check searches on models of its own, which have the same weights. All failures are
    reported at once, each with what was expected and what was found.

    Args:
        search: The class, called with `(model, config_list, evaluate, **arguments)`.
        model: Makes the model: a toy of `prune_core.testing`, or a class with an `input_shape`.
        config: Further keys of the one entry of the `config_list`.
        skip: Names of checks that do not apply: `result`, `budget`, `target`, `weights`,
            `determinism`, `resume`, `minimize`, `failure`, `settings`, `length`.
        **arguments: Further arguments of the search, such as those that make it short.

    Raises:
        AssertionError: When a promise is broken; the message lists every one.

    Example:
        ```python
        def test_it_keeps_what_every_search_promises():
            check_search(RandomSearchPruner, tries=6)
        ```
    """
    subject = _Subject(search, model, dict(config or {}), arguments)
    run_checks(getattr(search, "__name__", repr(search)), CHECKS, subject, skip)
