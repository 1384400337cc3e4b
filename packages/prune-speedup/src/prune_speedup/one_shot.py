"""Pruning for the impatient: one line, no config."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import nn

from prune_core.errors import ConfigError, did_you_mean
from prune_core.pruning.allocate import Masks
from prune_core.pruning.basic import BasicPruner
from prune_core.pruning.blockwise import example_of
from prune_core.registry import get_pruner
from prune_speedup.algorithm import chosen, running
from prune_speedup.budget.target import check_target, fit_budget
from prune_speedup.pruning.dependency_aware import DependencyAwareAllocator
from prune_speedup.torch.constants.zero import check_choice

__all__ = ["prune"]


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
    constants: str = "keep",
    data: Iterable[Any] | None = None,
    **options: Any,
) -> tuple[nn.Module, Masks]:
    """Mask a model with a registered algorithm, by a ratio or by a budget.

    Args:
        model: The model, wrapped in place.
        algorithm: The name of a registered pruner. Unless given, the best for what is known:
            `channel_obs` with data, `l1` without.
        sparsity: The ratio that each selected module loses.
        target: What may be left instead, such as `{"flops": 0.5}`, of `parameters`, `flops` or
            measured `latency`; the least sparsity that meets it is found.
        example_inputs: An input of the model: a tensor, a tuple or a dict. With it, channels that
            belong together go together, and masks are closed over what follows them.
        targets: Names or class names of modules, or `"default"` for what the algorithm prunes.
        exclude: Names or class names of modules that stay dense.
        round_to: Leave a multiple of this many channels; needs `example_inputs`.
        uniform: Leave layers that are alike equally wide, so that a single number in the model's
            config still describes them all; needs `example_inputs`.
        constants: For a target: what `shrink` will be told to do with a masked channel that is
            not zero. Only with `"zero"` can a target count on channels that a layer normalisation
            runs over, or that something adds to that no pruner masks; otherwise they stay.
        data: Inputs of the model, each a tensor, a tuple or a dict, for algorithms that look at
            what layers compute: what `calibrate=` is, a function that runs the model, in a
            simpler form.
        **options: Further arguments of the pruner, such as `calibrate=` and `reconstruct=`.

    Returns:
        The wrapped model and its masks.

    Example:
        ```python
        model, masks = prune_core.prune(model, "l1", sparsity=0.5, exclude="fc3")
        model, masks = prune_core.prune(model, "l1", target={"flops": 0.5}, example_inputs=x)
        model, masks = prune_core.prune(model, sparsity=0.5, example_inputs=x, data=batches)
        ```
    """
    if data is not None:
        options["calibrate"] = running(data, options.get("calibrate"))
    if algorithm is None and example_inputs is None and options.get("calibrate") is not None:
        example_inputs = example_of(model, options["calibrate"])
    algorithm, options = chosen(algorithm, options)
    _check_amount(sparsity, target, example_inputs, round_to, uniform=uniform)
    check_choice(constants)
    amount = 0.0 if sparsity is None else sparsity
    config_list: list[dict[str, Any]] = [
        {"sparsity": amount, **selector} for selector in _selectors(model, "targets", targets)
    ]
    config_list += [
        {"exclude": True, **selector} for selector in _selectors(model, "exclude", exclude)
    ]
    pruner_class = get_pruner(algorithm, framework="torch")
    coupled = example_inputs is not None and "dependency_aware" in getattr(
        pruner_class, "modes", ()
    )
    if coupled:
        options = {"mode": "dependency_aware", "dummy_input": example_inputs} | options
    elif target is not None or round_to > 1 or uniform:
        raise ConfigError(
            f"{algorithm!r} masks single weights, which makes nothing smaller; a budget, "
            "round_to and uniform need an algorithm that prunes output channels, such as 'l1'."
        )
    pruner: BasicPruner = pruner_class(model, config_list, **options)
    try:
        allocator = pruner.sparsity_allocator
        if isinstance(allocator, DependencyAwareAllocator):
            allocator.round_to, allocator.uniform = round_to, uniform
        return _compress(pruner, target, example_inputs if coupled else None, constants)
    except BaseException:
        pruner._unwrap_model()
        raise


def _compress(
    pruner: BasicPruner, target: Mapping[str, float] | None, example_inputs: Any, constants: str
) -> tuple[nn.Module, Masks]:
    allocator = pruner.sparsity_allocator
    if target is not None and isinstance(allocator, DependencyAwareAllocator):
        metrics = pruner.score()
        fit_budget(pruner, metrics, target, example_inputs, constants)
        masks = pruner.put_in_force(allocator.generate_sparsity(metrics), example_inputs)
        return pruner.bound_model, masks
    wrapped, masks = pruner.compress(example_inputs)
    return wrapped, masks


def _check_amount(
    sparsity: float | None,
    target: Mapping[str, float] | None,
    example_inputs: Any,
    round_to: int,
    *,
    uniform: bool,
) -> None:
    if (sparsity is None) == (target is None):
        raise ConfigError(
            "Say how much to prune, once: sparsity=0.5 prunes half of each module, and "
            "target={'flops': 0.5} as little as leaves half of the work."
        )
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
    modules = dict(model.named_modules(remove_duplicate=False))
    types = {type(module).__name__ for module in modules.values()} | {"default"}
    for name in wanted:
        if name not in modules and name not in types:
            raise ConfigError(
                f"{argument} has {name!r}, and the model has no module of that name or class."
                f"{did_you_mean(name, [*modules, *types])}"
            )
    return [{"op_names" if name in modules else "op_types": [name]} for name in wanted]
