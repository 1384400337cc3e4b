"""What torchao can do with a model, by name, and where."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from prune_core.errors import ConfigError, did_you_mean, shown
from prune_quant.schemes.torchao import torchao, version

__all__ = ["SCHEMES", "Scheme", "check_group", "find_scheme", "round_to"]

_INT4: Any = getattr(torch, "int4")  # noqa: B009 - which its type stubs lack


@dataclass(frozen=True)
class Scheme:
    """One way to quantise the linear layers of a model.

    Attributes:
        summary: What it does, for messages and docs.
        config: Makes torchao's config, given the size of a group.
        multiple: Of how many inputs a layer must have a multiple, given the size of a group.
        refuses: Returns why it cannot be done on a device, or nothing.
        fake_weight: What torchao's training rounds weights to, given the size of a group; None
            where it has no such training.
        caution: What to know of it on the CPU, for a warning.
    """

    summary: str
    config: Callable[[int], Any] | None
    multiple: Callable[[int, torch.device], int] = lambda group, device: 1
    refuses: Callable[[torch.device], str] = lambda device: ""
    fake_weight: Callable[[int], Any] | None = None
    caution: str = ""


def _api() -> Any:
    return torchao("quantization")


def _fake(**what: Any) -> Any:
    return torchao("quantization.qat").IntxFakeQuantizeConfig(**what)


def _int4(group: int) -> Any:
    api = _api()
    return api.IntxWeightOnlyConfig(weight_dtype=_INT4, granularity=api.PerGroup(group))


def _only_cuda(device: torch.device) -> str:
    if device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 9):
        return ""
    return (
        f"torchao {version()} multiplies float8 on GPUs of compute capability 8.9 or more, and the "
        f"model is on {device}. There, 'int8_dynamic' rounds inputs as well, and 'float8' weights "
        "only."
    )


def _never(device: torch.device) -> str:
    return (
        f"torchao {version()} has no kernel for int8 weights with 2:4 zeros. Use 'int8_dynamic' or "
        "'int8': the zeros stay where they are. On a GPU, 2:4 without int8 is "
        "torchao.sparsity.sparsify_(model, torchao.sparsity.semi_sparse_weight())."
    )


SCHEMES: dict[str, Scheme] = {
    "int8": Scheme(
        "Weights of linear layers as int8, one step for each output.",
        lambda group: _api().Int8WeightOnlyConfig(set_inductor_config=False),
        fake_weight=lambda group: _fake(dtype=torch.int8, granularity="per_channel"),
    ),
    "int8_dynamic": Scheme(
        "The same, and inputs rounded to int8 as they come: multiplies integers.",
        lambda group: _api().Int8DynamicActivationInt8WeightConfig(set_inductor_config=False),
        # torch multiplies int8 on CUDA in multiples of 8.
        multiple=lambda group, device: 8 if device.type == "cuda" else 1,
    ),
    "int4": Scheme(
        "Weights of linear layers as int4, one step for each group of inputs.",
        _int4,
        multiple=lambda group, device: group,
        fake_weight=lambda group: _fake(dtype=_INT4, group_size=group),
        caution=(
            "torchao keeps each integer of 4 bits in a byte here, so the model is as large as with "
            "'int8', and less exact. Use it to see what 4 bits cost, or before export to a device "
            "that packs them."
        ),
    ),
    "float8": Scheme(
        "Weights of linear layers as float8 (e4m3).",
        lambda group: _api().Float8WeightOnlyConfig(set_inductor_config=False),
    ),
    "float8_dynamic": Scheme(
        "The same, and inputs rounded to float8 as they come; on new GPUs.",
        lambda group: _api().Float8DynamicActivationFloat8WeightConfig(set_inductor_config=False),
        multiple=lambda group, device: 16,
        refuses=_only_cuda,
    ),
    "int8_2to4": Scheme("int8 with 2:4 zeros.", None, refuses=_never),
    "int8_static": Scheme(
        "Convolutions and linear layers, weights and inputs, by ranges seen on data; for CPUs.",
        None,
    ),
}


def find_scheme(name: object) -> Scheme:
    """Return a scheme by its name."""
    if not isinstance(name, str) or name not in SCHEMES:
        known = ", ".join(repr(each) for each in SCHEMES if each != "int8_2to4")
        raise ConfigError(
            f"scheme is {shown(name)}; it must be one of {known}.{did_you_mean(name, SCHEMES)}"
        )
    return SCHEMES[name]


def round_to(scheme: str, group_size: int = 32, device: torch.device | str = "cpu") -> int:
    """Return of how many channels to leave a multiple, so that a pruned model can be quantised.

    Give it to `prune_core.prune(..., round_to=...)`.

    Args:
        scheme: The name of a scheme, such as `"int8"`.
        group_size: How many weights share a scale, in schemes with groups.
        device: Where the quantised model will run.

    >>> round_to("int4", group_size=64)
    64
    >>> round_to("int8")
    1
    """
    return find_scheme(scheme).multiple(check_group(group_size), torch.device(device))


def check_group(group_size: object) -> int:
    """Return the size of a group, checked."""
    if not isinstance(group_size, int) or isinstance(group_size, bool) or group_size < 2:
        raise ConfigError(
            f"group_size is {shown(group_size)}; it must be a whole number of at least 2, such as "
            "32."
        )
    return group_size
