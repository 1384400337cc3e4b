"""Make a model smaller and prove that it computes the same, or say why that cannot be."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from os import PathLike
from typing import Any

import keras
import numpy as np

from prune_core.compressed import model_of
from prune_core.errors import ConfigError, SpeedupError, did_you_mean, warn
from prune_core.options import check_flags
from prune_speedup.engine.plan import Plan as Cut
from prune_speedup.engine.plan import make_plan as make_cut
from prune_speedup.engine.propagate import Labelling
from prune_speedup.engine.units import Unit
from prune_tf.constraint import Masked
from prune_tf.files import load_masks
from prune_tf.inputs import check_inputs, made_up_inputs, outputs_of, run
from prune_tf.layers import layers_of, slots_of
from prune_tf.masks import masks_of, put_masks
from prune_tf.speedup.constants import silenced
from prune_tf.speedup.copies import Pairs
from prune_tf.speedup.cost import bytes_of, cost_of
from prune_tf.speedup.find_units import analysed, both, labels_in, masks_of_units
from prune_tf.speedup.graph import check_model, is_graph
from prune_tf.speedup.labelling import labelled, recorded_of, unknown_in
from prune_tf.speedup.plan import Plan, make_plan
from prune_tf.speedup.rebuild import cut, rebuild
from prune_tf.speedup.reference import Values, masked, masked_weights, reader
from prune_tf.speedup.report import Change, SpeedupReport
from prune_tf.speedup.training import compile_alike
from prune_tf.speedup.verify import constant_places, difference, tolerance_of

__all__ = ["check_constants", "plan_for", "shrink"]

CHOICES = ("exact", "keep", "zero")


def shrink(
    model: keras.Model,
    example_inputs: Any = None,
    masks: Mapping[str, Mapping[str, Any]] | str | PathLike[str] | None = None,
    *,
    units: Iterable[Unit] | None = None,
    constants: str = "exact",
    verify: bool = True,
    tolerance: float | None = None,
) -> SpeedupReport:
    """Return a model without the channels that its masks make superfluous.

    Keras models cannot change their layers' shapes, so the smaller model is a new one,
    `report.model`, compiled if the model was; the model itself is not touched.

    Args:
        model: A built model: functional, Sequential, or a subclass.
        example_inputs: What both models are compared on; random numbers, or words, of the right
            shape unless given.
        masks: Masks beside those in force, as a mapping or a mask file. Without any, what the
            weights' own zeros make superfluous.
        units: Units to remove besides, as found by `prune_tf.units` on this model. All that belongs
            to them is taken to be zero.
        constants: What to do where a masked channel still carries a constant, such as the offset
            of the batch norm after a masked convolution. `"exact"`: the small model computes what
            the masked one does; the constant moves into later layers, and where it cannot, the
            channel stays. `"keep"` moves none, so that only channels that are zero go. `"zero"`
            masks the offset as well, so that more can go, and the report
            says by how much the output moved.
        verify: Compare both models. Without that, no number is edited that a layer's own Python
            reads, as how many heads there are, so that less may go.
        tolerance: The largest difference allowed, relative to the largest output; by default what
            rounding does in the type that the model computes in.

    Raises:
        SpeedupError: When the outputs would differ.
        MaskError: When the masks do not fit.

    Warns:
        PruneWarning: Nothing was removed, and why; `report.model` is the model itself then.

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
    check_constants(constants)
    check_flags(verify=verify)
    real = isinstance(tolerance, int | float) and not isinstance(tolerance, bool)
    if tolerance is not None and not (real and tolerance >= 0):
        raise ConfigError(f"tolerance is {tolerance!r}; it must be a number of at least 0.")
    model = model_of(model)
    check_model(model)
    if isinstance(masks, str | PathLike):
        masks = load_masks(masks, model)
    if masks is None:
        _check_zeros(model)
    if units is not None:
        found = analysed(model, example_inputs if not is_graph(model) else None)[0]
        going = masks_of_units(model, found, labels_in(found, units))
        masks = both(both(masks_of(model), masks or {}), going)
    applied = masked_weights(model, masks)
    if verify and example_inputs is None:
        example_inputs = made_up_inputs(model, trial=False)
    elif verify:
        check_inputs(model, example_inputs)
    wanted = _Wanted(model, applied, example_inputs, constants, verify, tolerance)
    # A size in a layer's own Python is edited only where a comparison would show a mistake.
    for repairs, telling in ((True, True), (True, False)) if verify else ():
        try:
            return _shrunk(wanted, repairs=repairs, telling=telling)
        except _NotEqualError as error:
            if not error.repaired:
                raise
    return _shrunk(wanted, repairs=False, telling=False)


def check_constants(constants: str) -> None:
    """Refuse a choice that there is not."""
    if constants not in CHOICES:
        raise ConfigError(
            f"constants is {constants!r}; it must be 'exact', which moves a constant into the next "
            "bias where that changes nothing, 'keep', which moves none, or 'zero', which also "
            "masks what makes a constant of a masked channel. What 'fold' and 'remove' do is there "
            f"for torch models only.{did_you_mean(constants, CHOICES)}"
        )


def plan_for(
    labelling: Labelling, masks: Mapping[str, Mapping[str, Any]], constants: str = "exact"
) -> Cut:
    """Return what `shrink` would take out of a model, without making the small model.

    Args:
        labelling: The labels of the model.
        masks: Masks beside those in force.
        constants: As for `shrink`.
    """
    made = recorded_of(labelling)
    applied = masked_weights(made.model, both(masks_of(made.model), masks))
    if constants == "zero":
        applied = silenced(made, labelling, applied)
    return make_plan(made, labelling, applied, fold=constants != "keep").cut


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What `shrink` was asked for, and what it found out about it."""

    model: keras.Model
    masks: Values
    inputs: Any
    constants: str
    verify: bool
    tolerance: float | None


class _NotEqualError(SpeedupError):
    """The small model does not run, or computes something else."""

    repaired = False


def _shrunk(wanted: _Wanted, repairs: bool, telling: bool) -> SpeedupReport:
    model, inputs = wanted.model, wanted.inputs
    example = inputs if not is_graph(model) else None
    made, labelling = labelled(model, example, repairs=repairs, telling=telling)
    applied = wanted.masks
    if wanted.constants == "zero":
        applied = silenced(made, labelling, applied)
    plan = make_plan(made, labelling, applied, fold=wanted.constants != "keep")
    worst, moved = None, 0.0
    try:
        with masked(model, applied):
            small, pairs = _rebuilt(model, plan)
            changes = _changes(model, pairs)
            if not changes:
                warn(_why_nothing(model, plan, applied))
                return _unchanged(model, plan)
            expected = outputs_of(model, inputs) if wanted.verify else []
            constant = constant_places(partial(run, model), inputs, expected)
        if wanted.verify:
            worst = _proved(model, small, inputs, expected, wanted.tolerance)
    except _NotEqualError as error:
        error.repaired = bool(plan.rules.counted or plan.rules.told)
        raise
    if wanted.verify and wanted.constants == "zero":
        with masked(model, wanted.masks):
            moved = difference(run(model, inputs), expected)
    _keep_masks(small, pairs, plan, applied)
    compile_alike(small, model, pairs, partial(cut, plan))
    if constant:
        warn(_says_little(model, constant, len(expected)))
    return SpeedupReport(
        small,
        (model.count_params(), small.count_params()),
        changes,
        worst,
        plan.held,
        unknown_in(plan.recorded, plan.cut.labelling),
        moved,
        flops=(_cost(plan, dense=True), _cost(plan)),
        bytes=(bytes_of(model), bytes_of(small)),
        removed=_count_removed(plan.cut),
        constant_outputs=constant,
    )


def _unchanged(model: keras.Model, plan: Plan) -> SpeedupReport:
    size, flops, memory = model.count_params(), _cost(plan, dense=True), bytes_of(model)
    return SpeedupReport(
        model,
        (size, size),
        held=plan.held,
        unknown=unknown_in(plan.recorded, plan.cut.labelling),
        flops=(flops, flops),
        bytes=(memory, memory),
    )


def _cost(plan: Plan, dense: bool = False) -> int:
    return cost_of(make_cut(plan.cut.labelling, ()) if dense else plan.cut).flops


def _count_removed(cut: Cut) -> int:
    """How many units a plan takes out of what a model holds."""
    columns = [c for columns in cut.labelling.axes.values() for c in columns if c is not None]
    every = np.unique(cut.labelling.labels.find(np.concatenate(columns)))
    return int(cut.removed[every].sum())


def _says_little(model: keras.Model, constant: Sequence[int], count: int) -> str:
    which = "The output" if count == 1 else f"Output {', '.join(map(str, constant))}"
    return (
        f"{which} of the masked {model.name!r} is the same for every sample, so that comparing it "
        "with the small model's shows little: nothing of the input reaches it. Has too much been "
        "masked, or does a layer put out nothing but zeros?"
    )


def _rebuilt(model: keras.Model, plan: Plan) -> tuple[keras.Model, Pairs]:
    try:
        return rebuild(model, plan)
    except (TypeError, ValueError) as error:
        raise _NotEqualError(
            f"The smaller layers of {model.name!r} do not fit together: {error}"
        ) from error


def _proved(
    model: keras.Model,
    small: keras.Model,
    inputs: Any,
    expected: list[np.ndarray[Any, Any]],
    tolerance: float | None,
) -> float:
    """Return by how much the small model's outputs differ, or raise where that is too much."""
    allowed = tolerance_of(model) if tolerance is None else tolerance
    try:
        found = run(small, inputs)
    except Exception as error:  # whatever a layer's own Python raises
        raise _NotEqualError(
            f"The small model of {model.name!r} does not run: {str(error).strip()}"
        ) from error
    worst = difference(expected, found)
    if worst > allowed:
        raise _NotEqualError(
            f"The small model's outputs differ from the masked model's by {worst:.1e} of the "
            f"largest output, and tolerance is {allowed:.1e}. {model.name!r} is untouched. "
            "For a deep model a larger tolerance may be all that is missing."
        )
    return worst


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


def _changes(model: keras.Model, pairs: Pairs) -> tuple[Change, ...]:
    copies = {id(old): new for old, new in pairs}
    return tuple(
        Change(f"{named.name}/{before.name}", tuple(before.shape), tuple(after.shape))
        for named in layers_of(model)
        if id(named.layer) in copies
        for before in named.layer._trainable_variables + named.layer._non_trainable_variables
        for after in copies[id(named.layer)].weights
        if before.name == after.name and tuple(before.shape) != tuple(after.shape)
    )


def _keep_masks(small: keras.Model, pairs: Pairs, plan: Plan, masks: Values) -> None:
    """Keep in force what is left of the masks."""
    names = {id(named.layer): named.name for named in layers_of(small)}
    left: dict[str, dict[str, np.ndarray[Any, Any]]] = {}
    for old, new in pairs:
        for (layer, name), mask in masks.items():
            if layer == id(old):
                rest = cut(plan, old, name, mask)
                if not rest.all():
                    left.setdefault(names[id(new)], {})[name] = rest
    put_masks(small, left)


def _why_nothing(model: keras.Model, plan: Plan, masks: Values) -> str:
    if all(mask.all() for mask in masks.values()):
        return (
            f"Nothing was removed: nothing of {model.name!r} is masked, and no channel is nothing "
            "but zeros. Prune it first, or pass masks=..."
        )
    reasons = []
    if plan.held:
        reasons.append(
            f"{plan.held} masked channels leave a constant, which stays where it is with "
            "constants='keep', and otherwise at the borders of a padded convolution "
            "(constants='zero' lets them go)"
        )
    if unknown_in(plan.recorded, plan.cut.labelling):
        name, kind = next(iter(unknown_in(plan.recorded, plan.cut.labelling).items()))
        reasons.append(f"channels around {name!r}, a {kind}, must stay: there is no rule for it")
    reasons.append(
        "channels go only as wholes, and channels that are added to each other go together: "
        "single weights that are masked cannot be taken out"
    )
    return f"Nothing was removed from {model.name!r}: {'; '.join(reasons)}."
