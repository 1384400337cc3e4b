"""A pruner in three steps, or four: collect data, score it, allocate masks, reconstruct."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from os import PathLike
from typing import Any, TypedDict

import torch
from torch import Tensor, nn

from prune_core.compressed import Compressed
from prune_core.errors import ConfigError, PruneError, warn
from prune_core.events import emit
from prune_core.masking import Masks, PrunerModuleWrapper, replace_modules
from prune_core.masking.axes import masked_names
from prune_core.masking.rewrite import Rewrites
from prune_core.pruning.pruner import ConfigList, Pruner
from prune_toolkit.allocate import SparsityAllocator
from prune_toolkit.calibration.calibrate import Calibrate, limited
from prune_toolkit.calibration.store import keeper
from prune_toolkit.calibration.watch import TokenMask, padding_of
from prune_toolkit.data import DataCollector
from prune_toolkit.from_training import FROM_TRAINING
from prune_toolkit.reconstruct.base import (
    LayerReconstructor,
    ModelReconstructor,
    Reconstruct,
    Reconstructor,
    reconstructors,
)
from prune_toolkit.score import MetricsCalculator
from prune_toolkit.solver import LayerSolver

__all__ = ["BasicPruner", "MoreOptions", "Options"]

SEQUENTIAL = (False, True, "block", "layer")


class MoreOptions(TypedDict, total=False):
    """What every basic pruner takes besides data: see `BasicPruner`."""

    reconstruct: Reconstruct
    sequential: bool | str
    keep: str | PathLike[str]
    checkpoint: str | PathLike[str] | None
    tokens: TokenMask


class Options(MoreOptions, total=False):
    """What every basic pruner takes besides its own arguments: see `BasicPruner`."""

    calibrate: Calibrate | None
    batches: int | None


class BasicPruner(Pruner):
    """Makes masks from exchangeable parts, and lets the weights that stay make up for them.

    A subclass sets `data_collector`, `metrics_calculator` and `sparsity_allocator` in
    `reset_tools()`, which is called whenever the pruner gets a model. One that is given an input of
    the model sets `dummy_input`; then `compress()` closes its masks by itself, unless it masks
    single weights.

    Args:
        model: The model, wrapped in place.
        config_list: The rules.
        calibrate: Takes the model and runs it on some batches. What an algorithm itself looks at
            data with, if it does; `reconstruct` and `sequential` need it for any algorithm.
        batches: After how many batches to stop, or None.
        reconstruct: How weights that stay make up for those that are pruned: the name of a
            registered reconstructor, such as `"least_squares"`, `"bias"` or `"batch_norm"`, an
            object made by hand, or a list of several.
        sequential: Whether scores are made block by block, each block on what the pruned blocks
            before it give. `"layer"` goes on within a block, layer by layer.
        keep: Where activations, and weights as they were, are kept: `"device"`, `"cpu"`, or a
            folder.
        checkpoint: A folder that keeps what is done, block by block. The same call goes on from
            it when the process was killed, and ends with the same weights.
        tokens: Takes the arguments of a call of the model, `(args, kwargs)`, and returns which
            tokens are no padding, `(samples, tokens)`, or None. Unless given, it is the
            `attention_mask`.
    """

    data_collector: DataCollector | None = None
    metrics_calculator: MetricsCalculator | None = None
    sparsity_allocator: SparsityAllocator | None = None
    layer_solver: LayerSolver | None = None
    dummy_input: Any = None

    def __init__(
        self,
        model: nn.Module,
        config_list: ConfigList,
        *,
        calibrate: Calibrate | None = None,
        batches: int | None = None,
        reconstruct: Reconstruct = None,
        sequential: bool | str = False,
        keep: str | PathLike[str] = "device",
        checkpoint: str | PathLike[str] | None = None,
        tokens: TokenMask = padding_of,
    ) -> None:
        if sequential not in SEQUENTIAL:
            raise ConfigError(
                f"sequential is {sequential!r}; it must be False, True or 'block', or 'layer'."
            )
        self._calibration = calibrate, batches
        self.sequential, self.keep, self.tokens = sequential, keeper(keep), tokens
        self.checkpoint = checkpoint
        self.reconstructors = reconstructors(reconstruct, self)
        self._rewrites: Rewrites | None = None
        self._check_data()
        super().__init__(model, config_list)

    def _check_data(self) -> None:
        given, _ = self._calibration
        given = None if given is FROM_TRAINING else given
        if self.sequential and given is None:
            raise ConfigError(
                "sequential needs calibrate=, a function that takes the model and runs it on some "
                "batches, again and again."
            )
        for each in self.reconstructors:
            if each.calibrate is None and given is None:
                raise ConfigError(
                    f"{type(each).__name__} looks at what layers compute, and got nothing to run "
                    "the model with. Give calibrate=, a function that takes the model and runs it "
                    "on some batches."
                )

    def calibration_of(self, steps: Iterable[Reconstructor]) -> tuple[Calibrate, int | None]:
        """Return what runs the model for some reconstructors, and for how many batches.

        Args:
            steps: The reconstructors.
        """
        own = next(((s.calibrate, s.batches) for s in steps if s.calibrate is not None), None)
        calibrate, batches = own or self._calibration
        assert calibrate is not None, "was checked when the pruner was made"
        return calibrate, batches

    def reset(
        self,
        model: nn.Module,
        config_list: Sequence[Mapping[str, Any]] | str | PathLike[str],
    ) -> None:
        """Start anew with another model or another config.

        Args:
            model: The model to prune from now on.
            config_list: The rules, or the path of a file that holds them.
        """
        super().reset(model, config_list)
        try:
            self.reset_tools()
        except BaseException:
            self.unwrap()
            raise

    def reset_tools(self) -> None:
        """Set the three parts, or call `reset()` on those that are there already."""
        raise NotImplementedError

    def compress(self, example_inputs: Any = None) -> Compressed[nn.Module, Masks]:
        """Make masks, put them in force, and return the wrapped model and the masks.

        What is returned unpacks to the two, and can be used as the model.

        Args:
            example_inputs: An input of the model; the `dummy_input` unless given. With either,
                the masks also cover what comes after a masked channel, such as the bias of a
                normalisation, so that the masked model is exactly what speedup makes small.

        Raises:
            PruneError: Something about the data is wrong; the model is as it was.
        """
        with self._all_or_nothing():
            if self.sequential or self.layer_solver is not None:
                from prune_toolkit.sequence import prune_in_sequence

                assert self._rewrites is not None
                prune_in_sequence(self, self._rewrites)
                return Compressed(self.bound_model, self._in_force(example_inputs))
            metrics = self.score()
            assert self.sparsity_allocator is not None
            masks = self.sparsity_allocator.generate_sparsity(metrics)
            return Compressed(self.bound_model, self.put_in_force(masks, example_inputs))

    def score(self) -> dict[str, Tensor]:
        """Collect data and return the scores, `{module name: tensor}`; no mask changes."""
        collector, calculator = self.data_collector, self.metrics_calculator
        if collector is None or calculator is None or self.sparsity_allocator is None:
            raise PruneError(
                f"{type(self).__name__}.reset_tools() must set data_collector, "
                "metrics_calculator and sparsity_allocator."
            )
        metrics = calculator.calculate_metrics(collector.collect())
        for name in self.get_modules_wrapper():
            if name not in metrics:
                raise PruneError(
                    f"There are no scores for {name!r}; {type(collector).__name__} and "
                    f"{type(calculator).__name__} must return a tensor for each wrapped module."
                )
        return metrics

    def put_in_force(self, masks: Masks, example_inputs: Any = None) -> Masks:
        """Put masks that were just made in force, tell listeners, and return what is in force.

        Weights are reconstructed, if that was asked for.

        Args:
            masks: The masks.
            example_inputs: An input of the model, to close the masks over what follows; the
                `dummy_input` unless given.
        """
        with self._all_or_nothing() as rewrites:
            steps = [each for each in self.reconstructors if isinstance(each, LayerReconstructor)]
            if steps:
                self._reconstruct(steps, masks, rewrites, example_inputs)
            self.load_masks(masks)
            return self._in_force(example_inputs, masks)

    def _reconstruct(
        self, steps: list[LayerReconstructor], masks: Masks, rewrites: Rewrites, example_inputs: Any
    ) -> None:
        """Fit layers to masks that are to come; take that back if the model is the worse for it."""
        from prune_toolkit.reconstruct.guard import DenseOutputs
        from prune_toolkit.sequence import reconstruct_layers

        example = self.dummy_input if example_inputs is None else example_inputs
        calibrate, _ = self.calibration_of(steps)
        asked = not len(rewrites)
        dense = DenseOutputs(self.bound_model, calibrate, self.tokens) if asked else None
        with self._masks_for_a_while(masks):
            masked = None if dense is None else dense.missed_by(self.bound_model)
        reconstruct_layers(self, steps, masks, rewrites, example)
        if dense is None or masked is None or not len(rewrites):
            return
        with self._masks_for_a_while(masks):
            fitted = dense.missed_by(self.bound_model)
        if fitted is not None and not fitted <= masked:
            rewrites.undo()
            names = " and ".join(type(each).__name__ for each in steps)
            warn(
                f"{names} fitted each layer better, and the model as a whole worse: on the "
                f"calibration data it would miss {fitted:.2g} of its outputs, and with the masks "
                f"alone {masked:.2g}. So the weights that stay are what they were. Layers that run "
                "many times in a forward do that; prune less, or train the model again."
            )

    @contextmanager
    def _masks_for_a_while(self, masks: Masks) -> Iterator[None]:
        held = {w: (_masks_held_by(w), w.masked_names) for w in self._all_wrappers()}
        self.load_masks(masks)
        try:
            yield
        finally:
            for wrapper in self._all_wrappers():
                if wrapper in held:
                    before, wrapper.masked_names = held[wrapper]
                    wrapper._buffers.update(before)
                else:
                    wrapper.put_masks({n: torch.ones_like(m) for n, m in wrapper.masks.items()})

    def _in_force(self, example_inputs: Any, masks: Masks | None = None) -> Masks:
        """Do what is left to do when masks have been put in force."""
        if not self.is_wrapped:
            self.wrap()
        coupling = None
        if example_inputs is None and self.granularity != "weights":
            example_inputs = self.dummy_input
            coupling = getattr(self.sparsity_allocator, "coupling", None)
        if example_inputs is not None:
            masks = self.close_masks(example_inputs, coupling, masks)
        elif masks is None:
            masks = {name: wrapper.masks for name, wrapper in self._wrappers.items()}
        with self._all_or_nothing() as rewrites:
            for each in self.reconstructors:
                if isinstance(each, ModelReconstructor):
                    each.apply(self.bound_model, limited(*self.calibration_of([each])), rewrites)
        emit("prune_masks_made", pruner=self, masks=masks)
        return masks

    @contextmanager
    def _all_or_nothing(self) -> Iterator[Rewrites]:
        """Put masks and weights back if anything goes wrong."""
        if self._rewrites is not None:  # within another one, which does so
            yield self._rewrites
            return
        self._rewrites = Rewrites(self.keep)
        held = [(w, _masks_held_by(w)) for w in self._all_wrappers()]
        closing = dict(self._closing)
        try:
            yield self._rewrites
        except BaseException:
            self._rewrites.undo()
            for wrapper, masks in held:
                wrapper._buffers.update(masks)
                wrapper.masked_names = masked_names(wrapper.module)
            more = [w for name, w in self._closing.items() if name not in closing]
            replace_modules(self.bound_model, {w: w.module for w in more})
            self._closing = closing
            raise
        else:
            keeper_of_all = next(iter(self._wrappers.values()), None)
            if keeper_of_all is not None:
                keeper_of_all.rewrites.absorb(self._rewrites)
        finally:
            self._rewrites = None


def _masks_held_by(wrapper: PrunerModuleWrapper) -> dict[str, Tensor | None]:
    return {key: mask for key, mask in wrapper._buffers.items() if key.endswith("_mask")}
