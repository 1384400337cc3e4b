"""The promises of a pruner, one function each; what breaks one is said in a sentence."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np

from prune_core.testing.subject import (
    Subject,
    check_count,
    expect,
    mistakes_in_a_config,
    refused,
)
from prune_tf.layers import layers_of
from prune_tf.masks import masks_of, unwrap
from prune_tf.pruning.rows import rows_of
from prune_tf.speedup.run import shrink
from prune_tf.testing.toys import make_batch

__all__ = ["CHECKS"]

Array = np.ndarray[Any, Any]


def capabilities_are_as_declared(subject: Subject) -> None:
    """Whether it scores channels, its modes and its need of data, are those that it declares."""
    per_channel = getattr(subject.pruner, "per_channel", None)
    if per_channel is None:  # another algorithm scores for it, as for a schedule
        return
    declared = "channels" if per_channel else "weights"
    expect(
        subject.granularity in (None, declared),
        f"the class declares per_channel = {per_channel}, and {subject.granularity!r} is expected.",
    )
    _, pruner = subject.prepare()
    scores = pruner.scores()
    for target in pruner.targets:
        shape = target.shape
        wanted = (shape[target.axis],) if per_channel else shape
        found = scores[target.name].shape if target.name in scores else None
        expect(
            found == wanted,
            f"per_channel is {per_channel}, and the scores of {target.name!r} have the shape "
            f"{found} instead of {wanted}.",
        )
    modes = getattr(subject.pruner, "modes", ("normal",))
    if len(modes) > 1:
        refused("mode='no_such_mode'", lambda: subject.prepare(mode="no_such_mode"))
    if "dependency_aware" in modes:
        _channels_go_together(subject)


def _channels_go_together(subject: Subject) -> None:
    model, _, _ = subject.compress(mode="dependency_aware")
    report = shrink(model, make_batch(model)[0], tolerance=1e-4)
    expect(
        report.parameters[1] < report.parameters[0],
        "in the mode 'dependency_aware', nothing can be removed of what is masked.",
    )


def sparsity_is_exact(subject: Subject) -> None:
    """Of n channels or weights, n - floor(sparsity * n) are kept."""
    for sparsity in subject.sparsities:
        _, _, masks = subject.compress(sparsity=sparsity)
        expect(bool(masks), "compress() returned no masks.")
        kernels = {name: next(iter(tensors.values())) for name, tensors in masks.items()}
        for name, kept in kernels.items():
            units = _units(np.asarray(kept, bool))
            counts = [(unit, int(alive.sum()), alive.size) for unit, alive in units]
            check_count(subject, name, sparsity, counts)


def _units(mask: Array) -> Iterator[tuple[str, Array]]:
    """Yield what a mask may be counted in: channels, if it has no halves of any, and weights."""
    slices = rows_of(mask, mask.ndim - 1)
    if (slices.all(axis=1) | ~slices.any(axis=1)).all():
        yield "channels", np.asarray(slices.all(axis=1))
    yield "weights", mask.ravel()


def masks_are_binary_and_fit(subject: Subject) -> None:
    """Masks are true or false, shaped like what they mask, returned and in force alike."""
    model, _, masks = subject.compress()
    layers = {named.name: named.layer for named in layers_of(model)}
    in_force = masks_of(model)
    for name, tensors in masks.items():
        expect(
            name in layers, f"compress() returned a mask for {name!r}, and there is no such layer."
        )
        for variable, mask in tensors.items():
            where, wanted = (
                f"the mask of {name} {variable}",
                tuple(getattr(layers[name], variable).shape),
            )
            expect(mask.shape == wanted, f"{where} has the shape {mask.shape} instead of {wanted}.")
            odd = mask[(mask != 0) & (mask != 1)]
            expect(not odd.size, f"{where} holds {odd[:1]}; a mask holds 0 (pruned) and 1.")
            expect(
                np.array_equal(in_force.get(name, {}).get(variable, ~mask), mask),
                f"{where} that compress() returned is not the one in force.",
            )
    _expect_zeros(model, masks, "after compress()")


def unwrapped_model_computes_the_same(subject: Subject) -> None:
    """Unwrapping leaves the masked values in the weights, and the masks out."""
    model, pruner, masks = subject.compress()
    masked = subject.output(model)
    pruner.unwrap()
    expect(not masks_of(model), "after unwrap(), the model still has masks.")
    _expect_close("the unwrapped model", subject.output(model), "under masks", masked)
    _expect_zeros(model, masks, "after unwrap()")


def doing_it_twice_is_harmless(subject: Subject) -> None:
    """Whoever unwraps or compresses again changes nothing."""
    model, pruner, masks = subject.compress()
    masked = subject.output(model)
    _, again = pruner.compress()
    expect(_same(masks, again), "compress() called twice masks more than called once.")
    unwrap(unwrap(model))
    _expect_close("the model unwrapped twice", subject.output(model), "before", masked)


def masked_values_stay_zero_in_training(subject: Subject) -> None:
    """Training reaches what is kept, and nothing that is masked comes back."""
    model, _, masks = subject.compress()
    before = [np.array(value) for value in model.get_weights()]
    model.compile("adam", "mse")
    inputs, _ = make_batch(model)
    model.fit(inputs, np.ones_like(subject.output(model)), epochs=2, verbose=0)
    changed = [not np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True)]
    expect(any(changed), "two training steps change no weight of the masked model.")
    _expect_zeros(model, masks, "after training")


def files_keep_the_masks(subject: Subject) -> None:
    """Weights and masks can be saved and loaded, in a `.keras` file and as weights."""
    model, _, masks = subject.compress()
    expected = subject.output(model)
    with tempfile.TemporaryDirectory() as folder:
        whole, weights = Path(folder) / "model.keras", Path(folder) / "model.weights.h5"
        model.save(whole)
        model.save_weights(weights)
        loaded = keras.models.load_model(whole)
        other, _ = subject.prepare()
        other.load_weights(weights)
    for what, found in (("the loaded model", loaded), ("a model with loaded weights", other)):
        in_force = {name: masks_of(found).get(name, {}) for name in masks}
        expect(_same(masks, in_force), f"{what} has other masks than the saved one.")
        _expect_close(what, subject.output(found), "the saved one", expected)


def a_copy_is_a_model_of_its_own(subject: Subject) -> None:
    """A copy has the masks, and what happens to it does not happen to the original."""
    model, _, masks = subject.compress()
    expected = subject.output(model)
    duplicate = keras.models.clone_model(model)
    duplicate.set_weights(model.get_weights())
    in_force = {name: masks_of(duplicate).get(name, {}) for name in masks}
    expect(_same(masks, in_force), "a copy of the model has other masks.")
    duplicate.set_weights([0 * value for value in duplicate.get_weights()])
    _expect_close("the original", subject.output(model), "before its copy was changed", expected)


def same_seed_gives_same_masks(subject: Subject) -> None:
    """The same seed, weights and data give the same masks."""
    first, second = subject.compress()[2], subject.compress()[2]
    expect(_same(first, second), "two runs with the same seed make different masks.")


def excluded_layers_stay_dense(subject: Subject) -> None:
    """A layer that the config excludes is not masked."""
    everything = list(subject.compress()[2])
    if len(everything) < 2:  # then nothing would be left to prune
        return
    name = everything[0]
    model, pruner = subject.prepare({"exclude": True, "op_names": [name]})
    _, masks = pruner.compress()
    expect(name not in masks, f"{name!r} is excluded, and has a mask.")
    expect(name not in masks_of(model), f"{name!r} is excluded, and is masked.")
    expect(
        set(masks) == set(everything[1:]),
        f"excluding {name!r} leaves {sorted(masks)} masked instead of {sorted(everything[1:])}.",
    )


def bad_config_is_refused_and_the_model_untouched(subject: Subject) -> None:
    """A mistake in the config is a ConfigError, and the model is as it was."""
    mistakes = mistakes_in_a_config(subject.entry(subject.middle), "layer")
    for mistake, config_list in mistakes.items():
        model = subject.make_model()
        before = [np.array(value) for value in model.get_weights()]
        refused(mistake, partial(subject.pruner, model, config_list, **subject.arguments))
        expect(not masks_of(model), f"after {mistake} was refused, the model has masks.")
        same = [np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True)]
        expect(all(same), f"after {mistake} was refused, weights have other values.")


def _same(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    return first.keys() == second.keys() and all(
        np.array_equal(mask, second[name].get(variable))
        for name, tensors in first.items()
        for variable, mask in tensors.items()
    )


def _expect_zeros(model: keras.Model, masks: Mapping[str, Mapping[str, Array]], when: str) -> None:
    layers = {named.name: named.layer for named in layers_of(model)}
    for name, tensors in masks.items():
        for variable, mask in tensors.items():
            value = np.asarray(keras.ops.convert_to_numpy(getattr(layers[name], variable)))
            expect(
                not value[~np.asarray(mask, bool)].any(),
                f"{when}, {name} {variable} is not zero where masked.",
            )


def _expect_close(what: str, found: Array, than: str, expected: Array) -> None:
    difference = float(np.abs(found - expected).max())
    # The same numbers through the same kernels; a little is left for another order of sums.
    expect(
        difference <= 1e-5 * max(1.0, float(np.abs(expected).max())),
        f"the output of {what} differs from the one {than} by up to {difference:.3g}.",
    )


CHECKS: Mapping[str, Callable[[Subject], None]] = {
    "capabilities": capabilities_are_as_declared,
    "sparsity": sparsity_is_exact,
    "masks": masks_are_binary_and_fit,
    "unwrap": unwrapped_model_computes_the_same,
    "idempotence": doing_it_twice_is_harmless,
    "training": masked_values_stay_zero_in_training,
    "files": files_keep_the_masks,
    "copies": a_copy_is_a_model_of_its_own,
    "determinism": same_seed_gives_same_masks,
    "exclude": excluded_layers_stay_dense,
    "bad_config": bad_config_is_refused_and_the_model_untouched,
}
