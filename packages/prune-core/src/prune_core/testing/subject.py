"""The pruner under test, whatever its framework, and what its checks share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from prune_core.amount import number_to_prune
from prune_core.errors import ConfigError

__all__ = ["Subject", "check_count", "expect", "mistakes_in_a_config", "refused"]


@dataclass(frozen=True)
class Subject(ABC):
    """The pruner under test, and how to make fresh ones of it.

    Attributes:
        pruner: The class, called with `(model, config_list, **arguments)`.
        config: Further keys of each entry.
        arguments: Further arguments of the pruner.
        sparsities: What to try.
        granularity: What the class has to declare, if that is known.
    """

    pruner: Callable[..., Any]
    config: Mapping[str, Any]
    arguments: Mapping[str, Any]
    sparsities: tuple[float, ...]
    granularity: str | None

    @abstractmethod
    def make_model(self) -> Any:
        """Return a model, always with the same weights."""

    @abstractmethod
    def output(self, model: Any) -> Any:
        """Return what a model computes at inference."""

    @property
    def middle(self) -> float:
        """The sparsity for checks that need only one."""
        return sorted(self.sparsities)[len(self.sparsities) // 2]

    def entry(self, sparsity: float) -> dict[str, Any]:
        """Return the entry of the config that selects what is pruned."""
        return {"sparsity": sparsity, **self.config}

    def prepare(
        self, *more: Mapping[str, Any], sparsity: float | None = None, **arguments: Any
    ) -> tuple[Any, Any]:
        """Return a fresh model and a pruner on it, with more entries in its config."""
        model = self.make_model()
        amount = self.middle if sparsity is None else sparsity
        given = {**self.arguments, **arguments}
        return model, self.pruner(model, [self.entry(amount), *more], **given)

    def compress(self, **prepared: Any) -> tuple[Any, Any, Any]:
        """Return a fresh model, the pruner that pruned it, and the masks."""
        model, pruner = self.prepare(**prepared)
        _, masks = pruner.compress()
        return model, pruner, masks


def expect(kept: bool | Any, otherwise: str) -> None:
    """Raise when a promise is broken; an `assert` would say nothing under `python -O`."""
    if not kept:
        raise AssertionError(otherwise)


def check_count(
    subject: Subject, name: str, sparsity: float, counts: Iterable[tuple[str, int, int]]
) -> None:
    """Expect that n - floor(sparsity * n) are kept, of channels or of weights.

    Args:
        subject: The pruner under test.
        name: The layer.
        sparsity: The sparsity asked for.
        counts: What the mask may be counted in, how many of these it keeps, and of how many.
    """
    found = [count for count in counts if subject.granularity in (None, count[0])]
    expect(found, f"the mask of {name!r} prunes parts of {subject.granularity}.")
    unit, kept, n = found[0]
    expect(
        any(kept == n - number_to_prune(sparsity, n) for _, kept, n in found),
        f"with sparsity {sparsity}, {name!r} keeps {kept} of {n} {unit}; "
        f"{n} - floor({sparsity} * {n}) is {n - number_to_prune(sparsity, n)}.",
    )


def mistakes_in_a_config(
    good: Mapping[str, Any], part: str
) -> Mapping[str, list[Mapping[str, Any]]]:
    """Return what a pruner has to refuse, each by what is wrong with it.

    Args:
        good: An entry without a mistake.
        part: What the framework calls a part of a model, such as `"layer"`.
    """
    return {
        "an empty list": [],
        "a sparsity of 1.5": [{**good, "sparsity": 1.5}],
        "a negative sparsity": [{**good, "sparsity": -0.1}],
        "an unknown key": [{**good, "sparsitty": 0.5}],
        f"no {part} selected": [{"sparsity": 0.5}],
        f"a {part} that is not there": [{"sparsity": 0.5, "op_names": [f"no_such_{part}"]}],
    }


def refused(mistake: str, attempt: Callable[[], Any]) -> None:
    """Expect a ConfigError, and no other.

    Args:
        mistake: What is wrong, for the sentence.
        attempt: What makes the mistake.
    """
    try:
        attempt()
    except ConfigError:
        return
    except Exception as error:
        kind = type(error).__name__
        raise AssertionError(f"{mistake} raises {kind}, not ConfigError: {error}") from error
    raise AssertionError(f"{mistake} is accepted.")
