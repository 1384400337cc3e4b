"""What every pruner of torch models promises, and the toys on which that is checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from prune_core.testing import pruner_contract
from prune_core.testing.capabilities import capabilities_are_as_declared
from prune_core.testing.pruner_contract import TorchSubject
from prune_core.testing.subject import Subject
from prune_core.testing.toys import ConvNet

__all__ = ["CHECKS", "subject"]

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


def subject(
    pruner: Callable[..., Any],
    model: Callable[[], nn.Module] | None,
    config: Mapping[str, Any],
    arguments: Mapping[str, Any],
    sparsities: tuple[float, ...],
    granularity: str | None,
) -> TorchSubject:
    """Return what the checks are called with; the arguments are those of `check_pruner`."""
    return TorchSubject(pruner, config, arguments, sparsities, granularity, model or ConvNet)
