"""`check_pruner`: what every pruner promises, checked on a toy of its framework."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from prune_core.doors import brought
from prune_core.registry import get_engine
from prune_core.testing.report import run_checks

__all__ = ["check_pruner"]


def check_pruner(
    pruner: Callable[..., Any],
    *,
    model: Callable[[], Any] | None = None,
    config: Mapping[str, Any] | None = None,
    sparsities: Collection[float] = (0.3, 0.5, 0.8),
    granularity: str | None = None,
    skip: Collection[str] = (),
    **arguments: Any,
) -> None:
    """Check that a pruner keeps what every pruner promises.

    A class says which framework it is for by an attribute, `framework = "keras"`, which pruners of
    prune-tf have; without one it is for torch.

    Every check gets a model of its own, with the same weights. All failures are reported at
    once, each with what was expected and what was found.

    Args:
        pruner: The class, called with `(model, config_list, **arguments)`.
        model: Makes the model to prune; by default a small convolutional network. For torch, a toy
            of this package, or a class with an `input_shape` whose output is scores of ten
            classes; for Keras, a function that returns such a model, built.
        config: Further keys of each entry of the `config_list`, such as `op_types`.
        sparsities: The sparsities to try.
        granularity: What its class must declare: `"channels"` when whole output channels are
            pruned, `"weights"` when single weights are; whichever it declares unless given.
        skip: Names of checks that do not apply: `capabilities`, `sparsity`, `masks`, `unwrap`,
            `idempotence`, `training`, `determinism`, `exclude`, `bad_config`; for torch also
            `parameters`, `state_dict` and `deepcopy`, for Keras `files` and `copies`.
        **arguments: Further arguments of the pruner, such as `calibrate`.

    Raises:
        AssertionError: When a promise is broken; the message lists every one.

    Example:
        ```python
        def test_it_keeps_what_every_pruner_promises():
            check_pruner(SpreadPruner, granularity="channels")
        ```
    """
    if granularity not in (None, "channels", "weights"):
        raise ValueError(f"granularity is {granularity!r}; it must be 'channels' or 'weights'.")
    checks, subject_of = _contract(getattr(pruner, "framework", "torch"))
    subject = subject_of(
        pruner,
        model,
        {"op_types": ["default"], **(config or {})},
        arguments,
        tuple(sparsities),
        granularity,
    )
    run_checks(getattr(pruner, "__name__", repr(pruner)), checks, subject, skip)


def _contract(framework: str) -> tuple[Any, Any]:
    """Return the checks for a framework, and what makes the subject that they are called with."""
    if framework != "torch":
        contract = get_engine(framework, wanted="check_pruner").testing
        return contract.CHECKS, contract.subject
    home = ("prune_toolkit.testing", "prune-toolkit", "check_pruner for torch")
    return brought("CHECKS", *home), brought("subject", *home)
