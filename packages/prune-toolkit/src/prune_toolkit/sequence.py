"""Pruning and reconstructing a model block by block.

Two ways lead through the blocks. When masks are known already, from scores over the whole model,
each layer is fitted to what it computed on the inputs of the dense model. Otherwise masks are made
on the way, by scores or by a solver, and a block sees what the pruned blocks before it give.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from prune_core.errors import ConfigError, warn
from prune_core.masking import Masks
from prune_core.masking.axes import masked_names
from prune_core.masking.rewrite import Rewrites, mark
from prune_core.masking.sharded import is_sharded
from prune_core.progress.log import is_first
from prune_core.registry import get_engine
from prune_toolkit.blockwise import Block, Walk, example_of
from prune_toolkit.calibrated import CalibratedCollector
from prune_toolkit.calibration.calibrate import Calibrate
from prune_toolkit.calibration.layers import matrix_of, weight_of
from prune_toolkit.calibration.precision import wide
from prune_toolkit.calibration.watch import InputWatch
from prune_toolkit.collect import ActivationGradientCollector, GradientCollector
from prune_toolkit.journal import Done, Journal
from prune_toolkit.reconstruct.base import LayerReconstructor
from prune_toolkit.reconstruct.layers import (
    fit_layer,
    layers_to_fit,
    loses_channels,
    naming,
    storable,
)
from prune_toolkit.solver import LayerProblem

if TYPE_CHECKING:
    from prune_toolkit.basic import BasicPruner

__all__ = ["prune_in_sequence", "reconstruct_layers"]


def reconstruct_layers(
    pruner: BasicPruner,
    steps: list[LayerReconstructor],
    masks: Masks,
    rewrites: Rewrites,
    example: Any = None,
) -> None:
    """Fit the layers of a model to masks that are not in force yet.

    Args:
        pruner: The pruner.
        steps: What finds the new weights.
        masks: What is going to be masked.
        rewrites: By way of which weights are changed.
        example: An input of the model, where one is at hand.
    """
    calibrate, batches = pruner.calibration_of(steps)
    every = pruner.masks_with(masks)
    coupling = None
    if loses_channels(pruner, every):
        coupling = getattr(pruner.sparsity_allocator, "coupling", None)
        if coupling is None:
            if example is None:
                example = example_of(pruner.bound_model, calibrate)
            engine = get_engine("torch", wanted="reconstructing what pruned channels gave")
            with pruner.plain() as model:
                coupling = engine.Coupling(model, example)
    fitted = layers_to_fit(pruner, every, coupling)
    if not fitted:
        warn(
            "There is nothing to reconstruct: no layer reads what was pruned, or none whose "
            "weights can make up for it."
        )
        return
    walk = _walk(
        pruner,
        {name: layer.module for name, layer in fitted.items()},
        calibrate,
        batches,
        dense=True,
        title=f"{type(pruner).__name__}: reconstruct",
    )
    journal = _journal(pruner, walk, steps, every)
    masked, missed = pruner._wrappers.keys() & fitted.keys(), []
    for number, block in enumerate(walk):
        if (done := _done(journal, number)) is not None:
            block.replayed = True
            block.run(lambda tokens: None)
            _apply(pruner, done, walk, rewrites)
            continue
        found = _watched(pruner, walk, block, steps, required=masked)
        for name in block.layers:
            if name in found:
                fit_layer(name, fitted[name], found[name], steps, pruner, every, rewrites)
            else:
                missed.append(name)
        _write(journal, number, walk, block, {}, rewrites)
    if missed:
        warn(
            f"{', '.join(map(repr, missed[:3]))}{' and others' if missed[3:] else ''} read what "
            "was pruned, and are left as they are: the data never reach them, or they are not "
            "called."
        )


def prune_in_sequence(pruner: BasicPruner, rewrites: Rewrites) -> Masks:
    """Make masks block by block and put them in force, and return them.

    Weights are changed where a solver or a reconstructor is asked for.
    """
    _check(pruner)
    steps = [each for each in pruner.reconstructors if isinstance(each, LayerReconstructor)]
    calibrate, batches = pruner.calibration_of(steps)
    masks: Masks = {}
    with _settled(pruner):
        walk = _walk(
            pruner,
            {name: wrapper.module for name, wrapper in pruner._wrappers.items()},
            calibrate,
            batches,
            dense=not pruner.sequential,
            fine=pruner.sequential == "layer",
            title=type(pruner).__name__,
        )
        journal = _journal(pruner, walk, steps, {})
        for number, block in enumerate(walk):
            if (done := _done(journal, number)) is not None:
                block.replayed = True
                if walk.dense:
                    block.run(lambda tokens: None)
                _apply(pruner, done, walk, rewrites)
                made = done.masks
            else:
                with pruner.focused(block.layers):
                    made = _pruned(pruner, walk, block, steps, rewrites)
                _write(journal, number, walk, block, made, rewrites)
            pruner.load_masks(made)
            masks |= made
    return masks


def _pruned(
    pruner: BasicPruner,
    walk: Walk,
    block: Block,
    steps: list[LayerReconstructor],
    rewrites: Rewrites,
) -> Masks:
    """Make the masks of one block, and change its weights."""
    if pruner.layer_solver is not None:
        return _solved(pruner, walk, block, rewrites)
    collector, calculator = pruner.data_collector, pruner.metrics_calculator
    allocator = pruner.sparsity_allocator
    assert collector is not None
    assert calculator is not None
    assert allocator is not None
    watching = collector if isinstance(collector, CalibratedCollector) else None
    found = _watched(pruner, walk, block, steps, watching)
    if watching is not None:
        watching.seen = len(walk)
        data = watching.gathered()
    else:
        data = collector.collect()
    # One block's allocation is within its modules: what each loses is settled.
    made = allocator.for_each_module().generate_sparsity(calculator.calculate_metrics(data))
    for name, layer in layers_to_fit(pruner, made).items() if steps else ():
        fit_layer(name, layer, found[name], steps, pruner, made, rewrites)
    return made


def _solved(pruner: BasicPruner, walk: Walk, block: Block, rewrites: Rewrites) -> Masks:
    """Let the pruner's solver choose masks and weights of one block."""
    solver, allocator = pruner.layer_solver, pruner.sparsity_allocator
    assert solver is not None
    assert allocator is not None
    modules = {name: walk.layers[name] for name in block.layers}
    with InputWatch(modules, products=True) as watch:
        block.run(watch.begin)
    found = watch.gathered()
    watch.forget()
    made: Masks = {}
    for name, module in modules.items():
        seen = found.pop(name)  # its products are freed with the last layer that needs them
        wrapper = pruner._wrappers[name]
        mask = wrapper.masks[wrapper.target] if wrapper.masked_count(wrapper.target) else None
        problem = LayerProblem(
            name,
            module,
            wide(matrix_of(module, wrapper.masked(wrapper.target).detach())),
            None if mask is None else matrix_of(module, mask),
            wrapper.config["sparsity"],
            seen,
        )
        with naming(name):
            kept, weight = solver.solve(problem)
        keep = weight_of(module, kept).contiguous()
        parameter = wrapper.parameter(wrapper.target).detach()
        fitted = storable(name, weight_of(module, weight), parameter.dtype)
        value = torch.where(keep, fitted, parameter)
        rewrites.put(module, wrapper.target, value)
        made[name] = allocator._expand_mask(name, keep)
    return made


def _watched(
    pruner: BasicPruner,
    walk: Walk,
    block: Block,
    steps: list[LayerReconstructor],
    watching: CalibratedCollector | None = None,
    required: Collection[str] | None = None,
) -> Mapping[str, Any]:
    """Run a block once, for its scores and for what reconstruction needs to know."""
    modules = {name: walk.layers[name] for name in block.layers if steps}
    watch = InputWatch(modules, products=any(step.products for step in steps))

    def begin(tokens: Tensor | None) -> None:
        watch.begin(tokens)
        if watching is not None:
            watching.begin(tokens)

    if watching is not None:
        watching.watch()
    try:
        with watch:
            block.run(begin)
    finally:
        if watching is not None:
            watching.stop()
    return watch.gathered(None if required is None else modules.keys() & required)


def _check(pruner: BasicPruner) -> None:
    name, collector = type(pruner).__name__, pruner.data_collector
    if hasattr(pruner.sparsity_allocator, "coupling"):
        raise ConfigError(
            f"{name} chooses channels that belong together over the whole model, so they cannot "
            "be chosen block by block. Leave sequential out; reconstruct works without it."
        )
    if isinstance(collector, GradientCollector | ActivationGradientCollector):
        raise ConfigError(
            f"{name} scores by gradients, and a block that is run by itself has none. Leave "
            "sequential out."
        )
    for name, wrapper in pruner._wrappers.items():
        if is_sharded(wrapper.parameter(wrapper.target)):
            raise ConfigError(
                f"{name!r} is cut over several processes, where its weights cannot be "
                "reconstructed. Prune before fully_shard()."
            )


@contextmanager
def _settled(pruner: BasicPruner) -> Iterator[None]:
    """Settle by a look at the dense model what each module loses, where modules are compared."""
    allocator = pruner.sparsity_allocator
    assert allocator is not None
    if not allocator.compares_modules:
        yield
        return
    masks = allocator.generate_sparsity(pruner.score())
    asked = {name: dict(wrapper.config) for name, wrapper in pruner._wrappers.items()}
    try:
        for name, wrapper in pruner._wrappers.items():
            mask = masks[name][wrapper.target]
            lost = 1 - int(mask.count_nonzero()) / mask.numel()
            for key in ("sparsity", "sparsity_per_layer", "total_sparsity"):
                wrapper.config[key] = lost
        yield
    finally:
        for name, config in asked.items():
            pruner._wrappers[name].config.update(config)


def _walk(
    pruner: BasicPruner,
    layers: Mapping[str, nn.Module],
    calibrate: Calibrate,
    batches: int | None,
    **how: Any,
) -> Walk:
    return Walk(pruner, layers, calibrate, batches, keep=pruner.keep, tokens=pruner.tokens, **how)


def _journal(
    pruner: BasicPruner, walk: Walk, steps: list[LayerReconstructor], masks: Masks
) -> Journal | None:
    """Open the folder that keeps what is done, if there is to be one."""
    if pruner.checkpoint is None:
        return None
    with pruner.plain() as model:
        weights = {name: mark(tensor) for name, tensor in model.state_dict().items()}
    settings = {name: wrapper.config for name, wrapper in pruner._wrappers.items()}
    hidden = {
        f"{name}.{tensor}": mark(mask)
        for name, tensors in pruner.masks_with(masks).items()
        for tensor, mask in tensors.items()
    }
    said: list[Any] = [
        type(pruner).__qualname__,
        pruner.sequential,
        walk.title,
        settings,
        weights,
        hidden,
    ]
    said += [vars(pruner.layer_solver) if pruner.layer_solver else None]
    said += [(type(step).__qualname__, step.settings) for step in steps]
    return Journal(pruner.checkpoint, f"{said!r} {walk.replay.fingerprint()}")


def _done(journal: Journal | None, number: int) -> Done | None:
    return None if journal is None else journal.read(number)


def _apply(pruner: BasicPruner, done: Done, walk: Walk, rewrites: Rewrites) -> None:
    for name, values in done.values.items():
        for tensor, value in values.items():
            rewrites.put(walk.layers[name], tensor, value)
        if (wrapper := pruner._wrappers.get(name)) is not None:
            wrapper.masked_names = masked_names(wrapper.module)


def _write(
    journal: Journal | None,
    number: int,
    walk: Walk,
    block: Block,
    masks: Masks,
    rewrites: Rewrites,
) -> None:
    if journal is None or not is_first():
        return
    mine = {id(walk.layers[name]): name for name in block.layers}
    values: dict[str, dict[str, Tensor]] = {}
    for made in rewrites:
        if id(made.module) in mine and made.now is not None:
            values.setdefault(mine[id(made.module)], {})[made.name] = made.now
    journal.write(number, Done(masks, values), last=number == walk.total - 1)
