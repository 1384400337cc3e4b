"""Pruning for the impatient: one line, no config."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import nn

from prune_core.compressed import Compressed, model_of
from prune_core.config.names import find_names
from prune_core.errors import ConfigError, did_you_mean, nearest, shown, warn
from prune_core.masking import Masks, bare, check_model, modules_of, tied_layers
from prune_core.masking.slices import all_of
from prune_core.options import check_flags, taken_by
from prune_core.registry import get_pruner
from prune_core.traversal import named_modules
from prune_speedup.algorithm import chosen, running
from prune_speedup.budget.target import check_target, fit_budget
from prune_speedup.gc_pause import collecting_later
from prune_speedup.pruning.dependency_aware import DependencyAwareAllocator
from prune_speedup.torch.constants.zero import check_choice
from prune_toolkit.basic import BasicPruner
from prune_toolkit.blockwise import example_of

__all__ = ["prune"]

COUPLED_MODES = ("dependency_aware", "global")


def prune(
    model: nn.Module,
    algorithm: str | None = None,
    *,
    sparsity: float | None = None,
    target: Mapping[str, float] | None = None,
    example_inputs: Any = None,
    targets: str | Sequence[str] = ("default",),
    exclude: str | Sequence[str] = (),
    round_to: int = 1,
    uniform: bool = False,
    constants: str = "exact",
    data: Iterable[Any] | None = None,
    **options: Any,
) -> tuple[nn.Module, Masks]:
    """Mask a model with a registered algorithm, by a ratio or by a budget.

    Args:
        model: The model, wrapped in place.
        algorithm: The name of a registered pruner. Unless given, the best for what is known:
            `channel_obs` with data, `l1` without.
        sparsity: The ratio that each selected module loses; with `mode="global"`, that all of them
            lose together; of an algorithm that takes out blocks, the share of them that goes.
        target: What may be left instead, such as `{"flops": 0.5}`, of `parameters`, `flops` or
            measured `latency`; the least sparsity that meets it is found.
        example_inputs: An input of the model: a tensor, a tuple or a dict. With it, channels that
            belong together go together, only what `shrink` removes is masked, and masks are closed
            over what follows them. Without it, the last layer stays dense, for its channels are
            most likely what the model returns.
        targets: Names or class names of modules, or `"default"` for what the algorithm prunes.
        exclude: Names or class names of modules that stay dense.
        round_to: Leave a multiple of this many channels; needs `example_inputs`.
        uniform: Leave layers that are alike equally wide, so that a single number in the model's
            config still describes them all; needs `example_inputs`.
        constants: What `shrink` will be told to do with a masked channel that is not zero. Only
            with `"zero"` are channels masked that a layer normalisation runs over, or that
            something is added to that no pruner masks; otherwise they stay.
        data: Inputs of the model, each a tensor, a tuple or a dict, for algorithms that look at
            what layers compute: what `calibrate=` is, a function that runs the model, in a
            simpler form.
        **options: Further arguments of the pruner, such as `calibrate=` and `reconstruct=`.
            `mode="global"` ranks the channels of all layers together instead of taking as much of
            each.

    Returns:
        The wrapped model and its masks. An algorithm that removes whole structures, such as the
        experts of a mixture, has no masks: then it is the smaller model and a report.

    Raises:
        ConfigError: Something cannot be done, or nothing could be pruned; the model is left as it
            was.

    Example:
        ```python
        model, masks = prune_core.prune(model, "l1", sparsity=0.5, exclude="fc3")
        model, masks = prune_core.prune(model, "l1", target={"flops": 0.5}, example_inputs=x)
        model, masks = prune_core.prune(model, sparsity=0.5, example_inputs=x, data=batches)
        ```
    """
    model = model_of(model)
    check_model(model, compiled=False)
    if not isinstance(algorithm, str | None):
        raise ConfigError(
            f"algorithm is {shown(algorithm)}; it must be the name of one, such as 'l1'. How much "
            "to prune is said by name: sparsity=0.5."
        )
    if data is not None:
        options["calibrate"] = running(data, options.get("calibrate"))
    if algorithm is None and example_inputs is None and options.get("calibrate") is not None:
        example_inputs = example_of(model, options["calibrate"])
    algorithm, options = chosen(algorithm, options)
    check_choice(constants)
    pruner_class: Any = get_pruner(algorithm, framework="torch")
    removes = getattr(pruner_class, "removes", "")
    # What removes structures may be told how much in ways of its own, and then checks them itself.
    if "count" not in options and not (removes and "target" in taken_by(pruner_class)):
        _check_how_much(sparsity, target)
    if removes:
        if "channels" in removes:
            options |= {"uniform": uniform, "constants": constants}
        removed: tuple[nn.Module, Any] = pruner_class.prune(
            model,
            sparsity=sparsity,
            target=target,
            example_inputs=example_inputs,
            targets=targets,
            exclude=exclude,
            round_to=round_to,
            **options,
        )
        return removed
    check_flags(uniform=uniform)
    _check_amount(target, example_inputs, round_to, uniform=uniform)
    channels = getattr(pruner_class, "granularity", "") == "channels"
    mode = options.get("mode")
    coupled = channels and example_inputs is not None and mode in (None, *COUPLED_MODES)
    if coupled and mode == "global":
        # Some scores rank the units of one group and say nothing of another group's.
        coupled = not {"normal", "global"}.isdisjoint(pruner_class.modes)
    if coupled:
        options = {name: value for name, value in options.items() if name != "mode"}
    elif target is not None or round_to > 1 or uniform:
        raise ConfigError(_no_budget(algorithm, pruner_class, mode))
    amount = 0.0 if sparsity is None else sparsity
    config_list: list[dict[str, Any]] = [
        {"sparsity": amount, **selector} for selector in _selectors(model, "targets", targets)
    ]
    config_list += [
        {"exclude": True, **selector} for selector in _selectors(model, "exclude", exclude)
    ]
    if channels and example_inputs is None:
        last = _last_layer(model, algorithm, pruner_class, targets, exclude)
        config_list += [{"exclude": True, "op_names": [name]} for name in last]
    if coupled and {*_names(targets)} == {"default"}:
        # The head of a language model: its channels are the words, and they are what it returns.
        config_list += [{"exclude": True, "op_names": [name]} for name in tied_layers(model)]
    # Nothing of the user's runs then but one forward.
    with collecting_later(target is None and options.get("calibrate") is None):
        pruner: BasicPruner = pruner_class(model, config_list, **options)
        try:
            if coupled:
                pruner.dummy_input = example_inputs
                pruner.sparsity_allocator = DependencyAwareAllocator(
                    pruner,
                    example_inputs,
                    round_to=round_to,
                    uniform=uniform,
                    constants=constants,
                    across=mode == "global",
                    tells_of_spared={*_names(targets)} != {"default"},
                )
            masks = _masks(pruner, target, example_inputs, constants)
            if amount or target is not None:
                _check_that_something_is_masked(pruner, masks)
        except BaseException:
            pruner.unwrap()
            raise
        return Compressed(pruner.hand_over(), masks)


def _masks(
    pruner: BasicPruner, target: Mapping[str, float] | None, example_inputs: Any, constants: str
) -> Masks:
    if target is None:
        return pruner.compress()[1]
    metrics = pruner.score()
    fit_budget(pruner, metrics, target, example_inputs, constants)
    assert pruner.sparsity_allocator is not None
    return pruner.put_in_force(pruner.sparsity_allocator.generate_sparsity(metrics))


def _no_budget(algorithm: str, pruner_class: Any, mode: str | None) -> str:
    granularity = getattr(pruner_class, "granularity", "")
    if granularity == "channels":
        return (
            f"mode is {mode!r}, which masks each layer for itself; a budget, round_to and uniform "
            "need layers that agree on their channels. Leave mode out, or say mode='global'."
        )
    if granularity == "weights" and {*pruner_class.default_types} & {"BatchNorm2d"}:
        return (
            f"{algorithm!r} ranks the factors of batch norms, each layer for itself; a budget, "
            "round_to and uniform need layers that agree on their channels. Use an algorithm that "
            "ranks channels, such as 'l1', or say sparsity= without the others."
        )
    if granularity == "weights":
        return (
            f"{algorithm!r} masks single weights, which makes nothing smaller; a budget, round_to "
            "and uniform need an algorithm that prunes output channels, such as 'l1'."
        )
    return (
        f"A budget, round_to and uniform need an algorithm that prunes output channels, and "
        f"{algorithm!r} does not say that it does: {pruner_class.__name__} would have to derive "
        "from prune_core.ChannelPruner, or declare granularity = 'channels'."
    )


def _last_layer(
    model: nn.Module,
    algorithm: str,
    pruner_class: type[BasicPruner],
    targets: str | Sequence[str],
    exclude: str | Sequence[str],
) -> list[str]:
    """Return the last layer that would lose channels, unless the user has spoken of it.

    Nobody knows the outputs of a model that was not run; of what is registered last, they are most
    likely made.
    """
    types = pruner_class.supported_types or pruner_class.default_types
    layers = [module for module in modules_of(model) if module.has_weight and module.is_a(types)]
    if not layers:
        return []
    last, said = layers[-1], {*_names(targets), *_names(exclude)}
    if not said.isdisjoint(last.names) or last.type_name in _names(exclude):
        return []
    if not layers[1:]:
        raise ConfigError(
            f"{last.name!r} is the only layer that {algorithm!r} prunes, and most likely makes "
            f"what the model returns. Say targets={last.name!r} to prune it all the same, or give "
            "example_inputs to see what can go."
        )
    warn(
        f"{last.name!r} stays dense: it is the last layer, whose channels are most likely what the "
        "model returns. With example_inputs, an input of the model, that is known and not guessed; "
        f"targets={last.name!r} prunes it all the same, and exclude={last.name!r} says that it "
        "stays."
    )
    return [last.name]


def _check_that_something_is_masked(pruner: BasicPruner, masks: Masks) -> None:
    if any(not all_of(mask) for tensors in masks.values() for mask in tensors.values()):
        return
    allocator = pruner.sparsity_allocator
    reasons, more_goes = ["the sparsity is less than one channel, or one weight, of any layer"], ""
    if isinstance(allocator, DependencyAwareAllocator) and not allocator.choice.families:
        found = allocator.choice
        reasons = [f"{name!r} stays because {why}" for name, why in found.fixed.items()]
        reasons += [
            f"{name!r} belongs together with {other!r}" for name, other in found.held.items()
        ]
        reasons += [f"{name!r} would stay in the model, masked or not" for name in found.spared]
        if found.spared:
            more_goes = (
                " With constants='zero', here and in shrink(), what would stay goes as well, and "
                "the output moves by as much as the report says."
            )
    more = f"; and {len(reasons) - 3} more" if reasons[3:] else ""
    raise ConfigError(f"Nothing can be pruned: {'; '.join(reasons[:3])}{more}.{more_goes}")


def _names(value: str | Sequence[str]) -> list[str]:
    return [value] if isinstance(value, str) else list(value)


def _check_how_much(sparsity: float | None, target: Mapping[str, float] | None) -> None:
    if (sparsity is None) == (target is None):
        raise ConfigError(
            "Say how much to prune, once: sparsity=0.5 prunes half of each module, and "
            "target={'flops': 0.5} as little as leaves half of the work."
        )


def _check_amount(
    target: Mapping[str, float] | None, example_inputs: Any, round_to: int, *, uniform: bool
) -> None:
    if target is not None:
        check_target(target)
    if not isinstance(round_to, int) or round_to < 1:
        raise ConfigError(f"round_to is {round_to!r}; it must be a whole number of at least 1.")
    if example_inputs is None and (target is not None or round_to > 1 or uniform):
        needs = "target" if target is not None else "round_to" if round_to > 1 else "uniform"
        raise ConfigError(
            f"{needs} needs example_inputs, an input of the model, to see what belongs together "
            "and what it costs."
        )


def _layers(model: nn.Module) -> list[str]:
    """Return the names of the modules that hold parameters themselves."""
    modules = model.named_modules()
    return [
        name
        for name, module in modules
        if name and next(module.parameters(False), None) is not None
    ]


def _selectors(
    model: nn.Module, argument: str, value: str | Sequence[str]
) -> list[dict[str, list[str]]]:
    """Return for each name or class name how a `config_list` selects it."""
    wanted = [value] if isinstance(value, str) else value
    if (
        not isinstance(wanted, Sequence)
        or not all(isinstance(name, str) for name in wanted)
        or (argument == "targets" and not wanted)
    ):
        raise ConfigError(
            f"{argument} is {value!r}; it must be a name or class name of modules, or a list."
        )
    if not wanted:
        return []
    with bare(model) as plain:
        modules = dict(named_modules(plain, every_name=True))
    types = {type(module).__name__ for module in modules.values()} | {"default"}
    found = find_names(wanted, modules)
    absent = [name for name in wanted if found[name] not in modules and name not in types]
    # A type is a filter, of which the model may have none; any other name has to be there.
    filters = [name for name in absent if hasattr(nn, name)]
    unknown = [name for name in absent if name not in filters]
    for name in unknown or (filters if filters == list(wanted) else ()):
        raise ConfigError(
            f"{argument} has {name!r}, and the model has no module of that name or class."
            f"{did_you_mean(name, [*modules, *types]) or nearest(name, _layers(plain))}"
        )
    return [
        {"op_names": [found[name]]} if found[name] in modules else {"op_types": [name]}
        for name in wanted
        if name not in filters
    ]
