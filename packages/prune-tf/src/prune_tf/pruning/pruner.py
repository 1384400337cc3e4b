"""What all pruners of Keras models share: targets, masks, and files."""

from __future__ import annotations

from abc import abstractmethod
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from typing import Any, ClassVar

import keras
import numpy as np

from prune_core.amount import number_to_prune
from prune_core.compressed import Compressed, model_of
from prune_core.config import Algorithm, Key, load_config, parse
from prune_core.errors import ConfigError, MaskError, PruneError, did_you_mean, shown, warn
from prune_core.events import emit
from prune_core.options import ChecksOptions
from prune_core.summary import Row, Summary
from prune_tf.axes import from_torch
from prune_tf.export import export_model
from prune_tf.files import load_masks, save_masks
from prune_tf.layers import layers_of
from prune_tf.masks import Masks, masks_of, put_masks, unwrap
from prune_tf.no_callback import NoCallback
from prune_tf.pruning.allocate import across_layers, layer_by_layer
from prune_tf.pruning.coupled import Coupling
from prune_tf.pruning.rows import rows_of
from prune_tf.pruning.targets import Target, find_targets
from prune_tf.torch_names import check_types

__all__ = [
    "CHANNEL_TYPES",
    "MATRIX_TYPES",
    "WEIGHTED_TYPES",
    "ConfigList",
    "Pruner",
    "coupling_in",
]

Array = np.ndarray[Any, Any]
ConfigList = Sequence[Mapping[str, Any]] | str | PathLike[str]

MATRIX_TYPES = (
    *(f"Conv{n}D" for n in (1, 2, 3)),
    *(f"Conv{n}DTranspose" for n in (1, 2, 3)),
    *(f"DepthwiseConv{n}D" for n in (1, 2)),
    *(f"SeparableConv{n}D" for n in (1, 2)),
    "Dense",
)
CHANNEL_TYPES = (*MATRIX_TYPES, "EinsumDense")
WEIGHTED_TYPES = (*CHANNEL_TYPES, "Embedding", "LSTMCell", "GRUCell")


class Pruner(NoCallback, metaclass=ChecksOptions):
    """Selects layers of a model, scores their weights, and masks those with the smallest scores.

    A subclass says what it prunes and computes `scores()`. Masks are in force from construction
    on, at first with nothing masked; they belong to the model, not to the pruner, and stay when
    the pruner is gone.

    Args:
        model: The model, masked in place.
        config_list: The rules, or the path of a YAML file that holds them.
        mode: One of `modes`: `"normal"` ranks the scores of each layer, `"global"` those of all
            layers of an entry together, and `"dependency_aware"` those of channels that can only
            be removed together, which takes a functional or Sequential model.

    Attributes:
        reads_weights: Whether scores are made of weights alone, so that any axis of any layer's
            weight can be scored; then the mode `"dependency_aware"` prunes layers of the user's
            own as well, such as experts that are kept as one weight.
    """

    default_types: ClassVar[tuple[str, ...]] = CHANNEL_TYPES
    supported_types: ClassVar[tuple[str, ...]] = CHANNEL_TYPES
    config_keys: ClassVar[tuple[str | Key, ...]] = ()
    modes: ClassVar[tuple[str, ...]] = ("normal",)
    per_channel: ClassVar[bool] = True
    reads_weights: ClassVar[bool] = False
    framework: ClassVar[str] = "keras"
    instead: ClassVar[str] = (
        ": its masks are in force in every fit(). For sparsity that grows, "
        "callbacks=[PruningSchedule(pruner, end_step=...)]."
    )

    def __init__(self, model: keras.Model, config_list: ConfigList, mode: str = "normal") -> None:
        model = model_of(model)
        if not isinstance(model, keras.Model):
            raise PruneError(
                f"model is a {type(model).__module__}.{type(model).__name__}; "
                f"{type(self).__name__}(model, config_list) prunes Keras 3 models (keras.Model)."
            )
        if not isinstance(mode, str) or mode not in self.modes:
            raise ConfigError(
                f"mode is {shown(mode)}; the modes of {type(self).__name__} are "
                f"{', '.join(map(repr, self.modes))}.{did_you_mean(str(mode), self.modes)}"
            )
        if isinstance(config_list, str | PathLike):
            config_list = load_config(config_list)
        if isinstance(config_list, list | tuple):
            check_types(config_list, {type(named.layer).__name__ for named in layers_of(model)})
        self.bound_model, self.mode, self.config_list = model, mode, config_list
        self.coupling = coupling_in(model, mode)
        self.targets = self.targets_in(model, config_list, self.coupling)
        self._number_scored: dict[str, int] = {}
        self.validate()
        if self.coupling is not None:
            left_out = () if self.reads_weights else self.coupling.own_types
            self.coupling.check(self.targets, left_out)
        in_force = masks_of(model)
        masks: Masks = {}
        for target in self.targets:
            known = in_force.get(target.layer_name, {})
            for name in (target.slot.name, *([target.bias] if target.bias else [])):
                shape = tuple(getattr(target.layer, name).shape)
                mask = known.get(name, np.ones(shape, bool))
                masks.setdefault(target.layer_name, {})[name] = mask
        put_masks(model, masks)
        self._tell_of_more_than_asked()

    @classmethod
    def targets_in(
        cls,
        model: keras.Model,
        config_list: Sequence[Mapping[str, Any]],
        coupling: Coupling | None = None,
    ) -> list[Target]:
        """Return what rules select of a model; nothing of it changes.

        Args:
            model: A built model.
            config_list: The rules.
            coupling: What goes together in it, where that is looked at: see `coupling_in`.
        """
        own = coupling.own_types if coupling and cls.reads_weights else ()
        algorithm = Algorithm(
            cls.__name__, (*cls.default_types, *own), (*cls.supported_types, *own)
        )
        found = find_targets(model, parse(config_list, cls.config_keys), algorithm)
        return found if coupling is None else coupling.placed(found)

    def validate(self) -> None:
        """Check what only this algorithm knows; nothing of the model has changed yet."""

    @abstractmethod
    def scores(self) -> dict[str, Array]:
        """Return `{layer name: scores}`, in torch's order of axes; the smallest are pruned.

        The shape is that of the weight, or one score for each output channel if `per_channel`.
        """

    def compress(self) -> Compressed[keras.Model, Masks]:
        """Make masks, put them in force, and return the model and the masks.

        What is returned unpacks to the two, and can be used as the model.
        """
        return Compressed(self.bound_model, self.compress_to(lambda final: final))

    def unwrap(self) -> keras.Model:
        """Take all masks off the model, leaving the zeros in its weights, and return it."""
        return unwrap(self.bound_model)

    def compress_to(self, share: Callable[[float], float]) -> Masks:
        """Make masks for a sparsity on the way to the final one, as schedules do.

        Args:
            share: Takes the sparsity that the config asks for and returns the one for now.
        """
        return self.compress_at(lambda target: share(float(target.config["sparsity"])))

    def compress_at(self, ratio: Callable[[Target], float]) -> Masks:
        """Make masks for a sparsity of each layer.

        Args:
            ratio: Takes a target and returns the ratio that it is to lose.
        """
        masks = self.masks_at(ratio)
        put_masks(self.bound_model, masks)
        emit("prune_masks_made", pruner=self, masks=masks)
        return masks

    def masks_at(self, ratio: Callable[[Target], float]) -> Masks:
        """Return masks for a sparsity of each layer, and leave those in force.

        Args:
            ratio: Takes a target and returns the ratio that it is to lose.
        """
        scores = self.scores()
        alive = {t.name: self.alive(t) for t in self.targets}
        self._check_shapes(scores, alive)
        return self.masks_for(self.allocate(scores, alive, ratio))

    def masks_for(self, kept: Mapping[str, Array]) -> Masks:
        """Return `{layer name: {variable name: mask}}`.

        Args:
            kept: Which scores of each layer stay.
        """
        masks: Masks = {}
        for target in self.targets:
            known = masks.setdefault(target.layer_name, {})
            for name, mask in self._spread(target, kept[target.name]).items():
                # A bias belongs to all weights of its layer: it stays while any of them has it.
                known[name] = known[name] | mask if name in known else mask
        return masks

    def amounts(self, share: Callable[[float], float]) -> tuple[int, ...]:
        """Return how many scores of each layer would go; as long as they stay, masks do too.

        Args:
            share: Makes of a final sparsity that of now.
        """
        return self.amounts_at(lambda target: share(float(target.config["sparsity"])))

    def amounts_at(self, ratio: Callable[[Target], float]) -> tuple[int, ...]:
        """Return the same for a sparsity of each layer.

        Args:
            ratio: The sparsity of a layer now.
        """
        # A schedule asks after every step, and how many there are stays the same.
        for target in self.targets if not self._number_scored else ():
            self._number_scored[target.name] = self.alive(target).size
        return tuple(number_to_prune(ratio(t), self._number_scored[t.name]) for t in self.targets)

    def _tell_of_more_than_asked(self) -> None:
        """Warn where more is masked already, because pruning never takes anything back."""
        groups: dict[Any, list[Target]] = defaultdict(list)
        for target in self.targets:
            groups[target.config["entry"] if self.mode == "global" else target.name].append(target)
        over = []
        for group in groups.values():
            alive = [self.alive(target) for target in group]
            asked = float(group[0].config["sparsity"])
            gone, size = sum(int((~each).sum()) for each in alive), sum(a.size for a in alive)
            if gone > number_to_prune(asked, size):
                over.append((group[0].name, gone / size, asked))
        if over:
            name, masked, asked = over[0]
            more = f" (and {len(over) - 1} more)" if over[1:] else ""
            warn(
                f"{masked:.1%} of {name!r}{more} is masked already, and {asked:.1%} is asked for: "
                "masks never shrink, so that what is masked stays. To begin anew, call "
                "prune_tf.unwrap(model) first; what was set to zero then has to be trained again."
            )

    def _check_shapes(self, scores: Mapping[str, Array], alive: Mapping[str, Array]) -> None:
        for name, expected in alive.items():
            found = scores[name].shape if name in scores else None
            if found != expected.shape:
                raise PruneError(
                    f"{type(self).__name__}.scores() returns "
                    + ("nothing" if found is None else f"an array of the shape {found}")
                    + f" for {name!r}; it must have the shape {expected.shape}."
                )

    def alive(self, target: Target) -> Array:
        """Return which scores may still be pruned.

        Args:
            target: The variable that is pruned.
        """
        alive = target.alive
        if not self.per_channel:
            return alive
        return np.asarray(rows_of(alive, target.axis).any(axis=1))

    def allocate(
        self,
        scores: Mapping[str, Array],
        alive: Mapping[str, Array],
        ratio: Callable[[Target], float],
    ) -> dict[str, Array]:
        """Return a mask of the shape of each layer's scores.

        Args:
            scores: The scores of each target.
            alive: Which of them may still be pruned.
            ratio: The share that goes.
        """
        if self.coupling is not None:
            return self.coupling.allocate(self.targets, scores, alive, ratio)
        allocate = across_layers if self.mode == "global" else layer_by_layer
        return allocate(self.targets, scores, alive, ratio)

    def _spread(self, target: Target, kept: Array) -> dict[str, Array]:
        """Spread a mask of scores over the weight, and over the bias of channels with none left."""
        weight_shape, axis = target.shape, target.axis
        mask = kept
        if self.per_channel:
            lying = [1] * len(weight_shape)
            lying[axis] = -1
            mask = np.broadcast_to(kept.reshape(lying), weight_shape) & target.alive
        masks = {target.slot.name: from_torch(target.layer, target.slot.name, mask)}
        if target.bias is not None:
            masks[target.bias] = target.bias_mask(np.asarray(rows_of(mask, axis).any(axis=1)))
        return masks

    # --- masks to and from elsewhere --------------------------------------------------------

    @property
    def masks(self) -> Masks:
        """The masks in force on the selected layers."""
        names = {target.layer_name for target in self.targets}
        return {n: masks for n, masks in masks_of(self.bound_model).items() if n in names}

    def load_masks(
        self,
        masks: Mapping[str, Mapping[str, Any]] | str | PathLike[str],
        names: Mapping[str, str] | None = None,
    ) -> None:
        """Put masks in force, from a mapping or from a file of either framework.

        Args:
            masks: `{layer name: {variable name: mask}}`, or the path of a mask file.
            names: `{name in the file: layer name}`, for layers that go by another name here.

        Raises:
            MaskError: When a mask does not fit; the masks in force stay as they are.
        """
        if isinstance(masks, str | PathLike):
            masks = load_masks(masks, self.bound_model, names)
        known = {target.layer_name for target in self.targets}
        for name in masks:
            if name not in known:
                raise MaskError(
                    f"The masks have {name!r}, which is not among the selected layers."
                    f"{did_you_mean(name, known)}"
                )
        put_masks(self.bound_model, masks)

    def save_masks(self, path: str | PathLike[str]) -> None:
        """Write the masks in force to a safetensors file.

        Args:
            path: Where to write them.
        """
        config = {target.layer_name: target.config for target in self.targets}
        save_masks(path, self.masks, self.bound_model, algorithm=type(self).__name__, config=config)

    def export_model(
        self, model_path: str | PathLike[str], mask_path: str | PathLike[str] | None = None
    ) -> None:
        """Write the masked model without its masks, and the masks if asked.

        The file has zeros where weights are masked and needs nothing of prune to be loaded;
        `model.save` instead keeps the masks in force in what is loaded.

        Args:
            model_path: Gets the model, in the format that its ending names (`export_model`).
            mask_path: Gets the masks.
        """
        export_model(self.bound_model, model_path)
        if mask_path is not None:
            self.save_masks(mask_path)

    def sparsity(self) -> dict[str, float]:
        """Return the ratio of each selected layer's weight that is masked."""
        return {t.name: 1.0 - float(t.alive.mean()) for t in self.targets}

    def summary(self) -> Summary:
        """Return a table of what is masked; `print()` shows it."""
        return Summary(tuple(_row(target) for target in self.targets))


def coupling_in(model: keras.Model, mode: str) -> Coupling | None:
    """What goes together in a model, for a mode that looks at that.

    A model without weights is refused by who looks for these.
    """
    looks = mode == "dependency_aware" and model.built and layers_of(model)
    return Coupling(model) if looks else None


def _row(target: Target) -> Row:
    masks = [target.alive]
    if target.bias is not None:
        bias = getattr(target.layer, target.bias)
        masks.append(bias.constraint.numpy())
    return Row(
        layer=target.name,
        type=type(target.layer).__name__,
        shape=tuple(getattr(target.layer, target.slot.name).shape),
        asked=target.config.get("sparsity"),
        reached=1.0 - float(target.alive.mean()),
        left=sum(int(mask.sum()) for mask in masks),
        total=sum(mask.size for mask in masks),
    )
