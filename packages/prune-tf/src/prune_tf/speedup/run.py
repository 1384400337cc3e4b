"""Make a model smaller and prove that it computes the same, or say why that cannot be."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from typing import Any

import keras
import numpy as np

from prune_core.compressed import model_of
from prune_core.errors import ConfigError, SpeedupError, did_you_mean
from prune_tf.constraint import Masked
from prune_tf.files import load_masks
from prune_tf.layers import layers_of, slots_of
from prune_tf.masks import set_masks
from prune_tf.speedup.copies import compile_alike
from prune_tf.speedup.graph import symbolic_model
from prune_tf.speedup.plan import Plan, make_plan
from prune_tf.speedup.propagate import analyse
from prune_tf.speedup.rebuild import cut, rebuild
from prune_tf.speedup.reference import Values, masked_weights, reader, reference_model
from prune_tf.speedup.report import Change, SpeedupReport
from prune_tf.speedup.verify import difference, random_inputs

__all__ = ["shrink"]

CHOICES = ("keep", "zero")


def shrink(
    model: keras.Model,
    example_inputs: Any = None,
    masks: Mapping[str, Mapping[str, Any]] | str | PathLike[str] | None = None,
    *,
    constants: str = "keep",
    verify: bool = True,
    tolerance: float = 1e-5,
) -> SpeedupReport:
    """Return a model without the channels that its masks make superfluous.

    Keras models cannot change their layers' shapes, so the smaller model is a new one,
    `report.model`, compiled if the model was; the model itself is not touched.

    Args:
        model: A built functional or Sequential model.
        example_inputs: What both models are compared on; random numbers of the right shape
            unless given.
        masks: Masks beside those in force, as a mapping or a mask file.
        constants: What to do where a masked channel still carries a constant, such as the offset
            of the batch norm after a masked convolution. `"keep"`: the small model computes what
            the masked one does; the constant moves into later layers, and where it cannot, the
            channel stays. `"zero"` masks the offset as well, so that more can go, and the report
            says by how much the output moved.
        verify: Compare both models.
        tolerance: The largest difference allowed, relative to the largest output.

    Raises:
        SpeedupError: When nothing can be made smaller, or the outputs would differ.
        MaskError: When the masks do not fit.

    Example:
        >>> import keras
        >>> from prune_tf import L1NormPruner, shrink
        >>> model = keras.Sequential(
        ...     [
        ...         keras.layers.Input((8, 8, 3)),
        ...         keras.layers.Conv2D(16, 3, activation="relu", name="conv"),
        ...         keras.layers.Flatten(),
        ...         keras.layers.Dense(2, name="head"),
        ...     ]
        ... )
        >>> model, _ = L1NormPruner(model, [{"sparsity": 0.5, "op_names": ["conv"]}]).compress()
        >>> print(shrink(model).parameters)
        (1602, 802)
    """
    if constants not in CHOICES:
        raise ConfigError(
            f"constants is {constants!r}; it must be 'keep', which removes only what changes "
            "nothing, or 'zero', which also masks what makes a constant of a masked channel."
            f"{did_you_mean(constants, CHOICES)}"
        )
    if not tolerance >= 0:
        raise ConfigError(f"tolerance is {tolerance!r}; it must be a number of at least 0.")
    model = model_of(model)
    symbolic_model(model)
    if isinstance(masks, str | PathLike):
        masks = load_masks(masks, model)
    applied = masked_weights(model, masks)
    if not any(not mask.all() for mask in applied.values()):
        raise SpeedupError(
            f"Nothing of {model.name!r} is masked. Prune it first, or pass masks=..."
        )
    if masks is None:
        _check_zeros(model)
    asked = dict(applied)
    # Which adds to the masks that are applied.
    plan = make_plan(analyse(model, applied, silence=constants == "zero"))
    try:
        small = rebuild(model, plan)
    except (TypeError, ValueError) as error:
        raise SpeedupError(
            f"The smaller layers of {model.name!r} do not fit together: {error}"
        ) from error
    changes = _changes(model, small)
    if not changes:
        raise SpeedupError(_why_nothing(model, plan))
    worst, moved = None, 0.0
    if verify:
        inputs = random_inputs(model) if example_inputs is None else example_inputs
        masked = model if masks is None else reference_model(model, asked)
        reference = masked if constants == "keep" else reference_model(model, applied)
        if reference is not masked:
            moved = difference(masked, reference, inputs)
        worst = difference(reference, small, inputs)
        if worst > tolerance:
            raise SpeedupError(
                f"The small model's outputs differ from the masked model's by {worst:.1e} of the "
                f"largest output, and tolerance is {tolerance:.1e}. {model.name!r} is untouched. "
                "For a deep model in float32 a larger tolerance may be all that is missing."
            )
    _keep_masks(model, small, plan, applied)
    compile_alike(small, model)
    return SpeedupReport(
        small,
        (model.count_params(), small.count_params()),
        changes,
        worst,
        plan.held,
        plan.analysis.unknown,
        moved,
    )


def _check_zeros(model: keras.Model) -> None:
    """Refuse a model that does not compute with its masks, so that nothing equals it."""
    weights = reader({})
    for named in layers_of(model):
        for name in slots_of(named.layer):
            constraint = getattr(named.layer, name).constraint
            if (
                isinstance(constraint, Masked)
                and weights(named.layer, name)[~constraint.numpy()].any()
            ):
                raise SpeedupError(
                    f"{named.name!r} {name!r} is not zero where it is masked, as after loading or "
                    "averaging weights; call prune_tf.apply_masks(model) first."
                )


def _changes(model: keras.Model, small: keras.Model) -> tuple[Change, ...]:
    return tuple(
        Change(f"{old.name}/{before.name}", tuple(before.shape), tuple(after.shape))
        for old, new in zip(layers_of(model), layers_of(small), strict=True)
        for before in old.layer._trainable_variables + old.layer._non_trainable_variables
        for after in new.layer.weights
        if before.name == after.name and tuple(before.shape) != tuple(after.shape)
    )


def _keep_masks(model: keras.Model, small: keras.Model, plan: Plan, masks: Values) -> None:
    """Keep in force what is left of the masks."""
    left: dict[str, dict[str, np.ndarray[Any, Any]]] = {}
    for old, new in zip(layers_of(model), layers_of(small), strict=True):
        for (layer, name), mask in masks.items():
            if layer == id(old.layer):
                rest = cut(plan, old.layer, name, mask)
                if not rest.all():
                    left.setdefault(new.name, {})[name] = rest
    set_masks(small, left)


def _why_nothing(model: keras.Model, plan: Plan) -> str:
    reasons = []
    if plan.held:
        reasons.append(
            f"{plan.held} masked channels leave a constant that reaches the borders of a padded "
            "convolution (constants='zero' lets them go)"
        )
    if plan.analysis.unknown:
        name, kind = next(iter(plan.analysis.unknown.items()))
        reasons.append(f"channels around {name!r}, a {kind}, must stay: there is no rule for it")
    reasons.append(
        "channels go only as wholes, and channels that are added to each other go together: "
        "single weights that are masked cannot be taken out"
    )
    return f"No layer of {model.name!r} can be made smaller: {'; '.join(reasons)}."
