"""`check_pruner`: what every pruner of torch models promises, checked on a toy."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from torch import nn

from prune_core.testing import pruner_contract
from prune_core.testing.capabilities import capabilities_are_as_declared
from prune_core.testing.pruner_contract import Subject
from prune_core.testing.report import run_checks
from prune_core.testing.toys import ConvNet, make_batch, make_toy

__all__ = ["CHECKS", "check_pruner"]

CHECKS: Mapping[str, Callable[[Subject], None]] = {
    "capabilities": capabilities_are_as_declared,
    "sparsity": pruner_contract.sparsity_is_exact,
    "masks": pruner_contract.masks_are_binary_and_fit,
    "unwrap": pruner_contract.unwrapped_model_computes_the_same,
    "idempotence": pruner_contract.wrapping_and_unwrapping_twice_is_harmless,
    "parameters": pruner_contract.parameters_stay_the_same_objects,
    "training": pruner_contract.masked_values_stay_zero_in_training,
    "state_dict": pruner_contract.state_dict_survives_a_round_trip,
    "deepcopy": pruner_contract.a_copy_is_a_model_of_its_own,
    "determinism": pruner_contract.same_seed_gives_same_masks,
    "exclude": pruner_contract.excluded_modules_stay_dense,
    "bad_config": pruner_contract.bad_config_is_refused_and_the_model_untouched,
}


def check_pruner(
    pruner: Callable[..., Any],
    *,
    model: Callable[[], nn.Module] = ConvNet,
    config: Mapping[str, Any] | None = None,
    sparsities: Collection[float] = (0.3, 0.5, 0.8),
    granularity: str | None = None,
    skip: Collection[str] = (),
    **arguments: Any,
) -> None:
    """Check that a pruner keeps what every pruner promises.

    Every check gets a model of its own, with the same weights. All failures are reported at
    once, each with what was expected and what was found.

    Args:
        pruner: The class, called with `(model, config_list, **arguments)`.
        model: Makes the model to prune: a toy of this package, or a class with an `input_shape`
            whose output is scores of ten classes.
        config: Further keys of each entry of the `config_list`, such as `op_types`.
        sparsities: The sparsities to try.
        granularity: What its class must declare: `"channels"` when whole output channels are
            pruned, `"weights"` when single weights are; whichever it declares unless given.
        skip: Names of checks that do not apply: `capabilities`, `sparsity`, `masks`, `unwrap`,
            `idempotence`, `parameters`, `training`, `state_dict`, `deepcopy`, `determinism`,
            `exclude`, `bad_config`.
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
    subject = Subject(
        pruner=pruner,
        make_model=lambda: make_toy(model),
        make_batch=make_batch,
        config={"op_types": ["default"], **(config or {})},
        arguments=arguments,
        sparsities=tuple(sparsities),
        granularity=granularity,
    )
    run_checks(getattr(pruner, "__name__", repr(pruner)), CHECKS, subject, skip)
