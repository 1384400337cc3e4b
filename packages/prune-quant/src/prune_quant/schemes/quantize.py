"""Quantise a model by the name of a scheme, with torchao."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn

from prune_core.compressed import model_of
from prune_core.errors import ConfigError, PruneError, nearest, shown, warn
from prune_core.masking import check_model, unwrap, wrappers_in
from prune_quant.schemes.table import Scheme, check_group, find_scheme
from prune_quant.schemes.torchao import quiet, torchao
from prune_quant.wrapper import QuantizerModuleWrapper

__all__ = ["finish_qat", "prepare_qat", "quantize"]

_QAT = "_prune_quant_qat"


def quantize(
    model: nn.Module,
    scheme: str = "int8",
    *,
    data: Any = None,
    exclude: Sequence[str] = (),
    group_size: int = 32,
    inplace: bool = False,
) -> nn.Module:
    """Return a quantised model.

    Masks of a pruner are put into the weights first, and the zeros that are there stay zeros.

    Args:
        model: The model, pruned or not. It is left as it is, unless `inplace`.
        scheme: `"int8"`, `"int8_dynamic"`, `"int4"`, `"float8"` or `"float8_dynamic"` for linear
            layers; `"int8_static"`, which needs data, for convolutions as well.
        data: For `"int8_static"`: a few batches of real inputs, each a tensor, a tuple or a dict.
        exclude: Names of layers that stay as they are.
        group_size: For `"int4"`: how many weights share a step.
        inplace: Change the model itself, where a copy would not fit into memory.

    Raises:
        ConfigError: When torchao cannot do it with this model on this device; says what it can.

    Example:
        >>> from torch import nn
        >>> small = quantize(nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 4)), "int8")
        >>> small[0].weight.dtype, type(small[0].weight).__name__
        (torch.float32, 'Int8Tensor')
    """
    model = model_of(model)
    found = _checked(model, scheme, exclude)
    if scheme == "int8_static":
        if inplace:
            raise ConfigError("'int8_static' makes a new graph, so it cannot be done inplace=True.")
        from prune_quant.schemes.static import quantize_static

        return quantize_static(_copy(model), data, exclude)
    if data is not None:
        raise ConfigError(
            f"{scheme!r} looks at no data. Leave data out, or use 'int8_static', which rounds "
            "convolutions and inputs by what it sees."
        )
    layers = _layers(model, scheme, found, exclude, check_group(group_size))
    if not inplace:
        model = _copy(model)
    elif wrapped := [*wrappers_in(model)]:
        raise ConfigError(
            f"The model is masked ({wrapped[0]!r} among others), and inplace=True changes it for "
            "good: call prune_core.unwrap(model) first, and shrink it."
        )
    if found.caution and _device(model).type == "cpu":
        warn(f"{scheme!r}: {found.caution}")
    assert found.config is not None, "a scheme without a config has been refused"
    _apply(model, found.config(group_size), layers)
    return model


def prepare_qat(
    model: nn.Module, scheme: str = "int8", *, exclude: Sequence[str] = (), group_size: int = 32
) -> nn.Module:
    """Make linear layers round their weights while the model is trained, and return the model.

    It is changed in place, and its parameters stay the objects that they are, so an optimizer goes
    on. After training, `finish_qat` makes the quantised model.

    Args:
        model: The model, pruned or not, without masks.
        scheme: What `finish_qat` will make of it: `"int8"` or `"int4"`.
        exclude: Names of layers that stay as they are.
        group_size: For `"int4"`: how many weights share a step.
    """
    model = model_of(model)
    found = _checked(model, scheme, exclude)
    if found.fake_weight is None:
        raise ConfigError(
            f"torchao has no training for {scheme!r} that ends in the same numbers. It has for "
            "'int8' and 'int4'; prune_quant.QAT_Quantizer trains with rounded inputs, and for "
            "convolutions."
        )
    if wrapped := [*wrappers_in(model)]:
        raise ConfigError(
            f"The model is masked ({wrapped[0]!r} among others), and torchao puts other layers in "
            "the place of those that are. Shrink it first, or train it with "
            "prune_quant.QAT_Quantizer, which keeps masks."
        )
    layers = _layers(model, scheme, found, exclude, check_group(group_size))
    qat = torchao("quantization.qat")
    rounding = qat.QATConfig(weight_config=found.fake_weight(group_size), step="prepare")
    _apply(model, rounding, layers)
    setattr(model, _QAT, (scheme, tuple(exclude), group_size))
    return model


def finish_qat(model: nn.Module) -> nn.Module:
    """Return the quantised model of one that `prepare_qat` prepared and that was trained since.

    Args:
        model: The model that was prepared and trained.
    """
    model = model_of(model)
    check_model(model)
    if not hasattr(model, _QAT):
        raise PruneError("The model was not prepared: call prepare_qat(model, scheme), and train.")
    scheme, exclude, group_size = getattr(model, _QAT)
    trained = copy.deepcopy(model)
    delattr(trained, _QAT)
    api, qat = torchao("quantization"), torchao("quantization.qat")
    with quiet():
        api.quantize_(trained, qat.QATConfig(step="convert"))
    return quantize(trained, scheme, exclude=exclude, group_size=group_size, inplace=True)


def _apply(model: nn.Module, config: Any, layers: dict[str, nn.Linear]) -> None:
    api = torchao("quantization")
    with quiet():
        api.quantize_(model, config, filter_fn=lambda module, name: name in layers)
    for name in layers:
        # torchao puts a function there that keeps the model from being pickled.
        vars(model.get_submodule(name)).pop("extra_repr", None)


def _copy(model: nn.Module) -> nn.Module:
    return unwrap(copy.deepcopy(model))


def _device(model: nn.Module) -> torch.device:
    return next((p.device for p in model.parameters()), torch.device("cpu"))


def _checked(model: nn.Module, scheme: str, exclude: Sequence[str]) -> Scheme:
    """Return a scheme, for a model that it may be used on."""
    found = find_scheme(scheme)
    check_model(model, compiled=False)
    if any(isinstance(module, QuantizerModuleWrapper) for module in model.modules()):
        raise ConfigError(
            "The model is wrapped by a quantizer. quantizer.convert() makes it a model of "
            "integers; or take it out with quantizer.unwrap()."
        )
    if hasattr(model, _QAT):
        raise ConfigError(
            "The model rounds already, since prepare_qat: train it, and call finish_qat(model)."
        )
    if isinstance(exclude, str) or not all(isinstance(name, str) for name in exclude):
        raise ConfigError(f"exclude is {shown(exclude)}; it must be a list of names of layers.")
    names = {name: module for name, module in _plain_names(model) if name}
    for name in exclude:
        if name not in names:
            raise ConfigError(
                f"exclude has {name!r}, and the model has no module of that name."
                f"{nearest(name, names)}"
            )
    if why := found.refuses(_device(model)):
        raise ConfigError(f"{scheme!r} cannot be done here: {why}")
    return found


def _plain_names(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield modules under the names that they have without masks."""
    masked = {id(w.module): name for name, w in wrappers_in(model).items()}
    held = {id(w) for w in wrappers_in(model).values()}
    for name, module in model.named_modules():
        if id(module) not in held:
            yield masked.get(id(module), name), module


def _layers(
    model: nn.Module, scheme: str, found: Scheme, exclude: Sequence[str], group_size: int
) -> dict[str, nn.Linear]:
    """Return the layers that will be quantised.

    Raises:
        ConfigError: When there are none, or one has a width that the scheme does not take.
    """
    linear = {
        name: module
        for name, module in _plain_names(model)
        if type(module) is nn.Linear and not _is_excluded(name, exclude)
    }
    for name, module in linear.items():
        if type(module.weight.data) is not torch.Tensor or not module.weight.is_floating_point():
            raise ConfigError(f"{name!r} is quantised already ({type(module.weight).__name__}).")
    linear = {n: m for n, m in linear.items() if n not in _tied(model, linear)}
    others = [m for _, m in _plain_names(model) if type(m).__name__.startswith("Conv")]
    if not linear:
        hint = (
            " Its convolutions are quantised by 'int8_static', with data=a few batches of inputs."
            if others
            else ""
        )
        raise ConfigError(
            f"{scheme!r} quantises linear layers (torch.nn.Linear), and the model has none that "
            f"are not excluded.{hint}"
        )
    multiple = found.multiple(group_size, _device(model))
    if misfits := {n: m.in_features for n, m in linear.items() if m.in_features % multiple}:
        shown_first = ", ".join(f"{name!r} has {width}" for name, width in [*misfits.items()][:3])
        more = f" and {len(misfits) - 3} more" if len(misfits) > 3 else ""
        raise ConfigError(
            f"{scheme!r} needs layers whose inputs are a multiple of {multiple}: "
            f"{shown_first}{more}. Prune with prune_core.prune(..., round_to={multiple}), leave "
            f"them out with exclude={list(misfits)[:3]}, or use 'int8'."
        )
    inside = sum(m.weight.numel() for m in linear.values())
    outside = sum(m.weight.numel() for m in others if isinstance(m.weight, torch.Tensor))
    if outside > inside:
        warn(
            f"{scheme!r} quantises linear layers only, and convolutions hold {outside:,} weights "
            f"of this model, linear layers {inside:,}. 'int8_static' quantises both."
        )
    return linear


def _is_excluded(name: str, exclude: Sequence[str]) -> bool:
    """Whether a layer, or something that it is a part of, is excluded."""
    return any(f"{name}.".startswith(f"{each}.") for each in exclude)


def _tied(model: nn.Module, linear: dict[str, nn.Linear]) -> set[str]:
    """Return the layers that share their weight with another module, such as an embedding."""
    holders: Counter[int] = Counter()
    for _, module in _plain_names(model):
        holders.update(id(p) for p in module.parameters(recurse=False))
    tied = {name for name, module in linear.items() if holders[id(module.weight)] > 1}
    if tied:
        warn(
            f"{', '.join(map(repr, sorted(tied)))} shares its weight with another module, and "
            "stays as it is: quantised, it would no longer be shared."
        )
    return tied
