"""Make a model smaller and prove that it computes the same, or leave it as it was."""

from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from os import PathLike
from typing import Any, Concatenate, ParamSpec

from torch import nn
from torch.nn.parameter import is_lazy

from prune_core.compat import understands
from prune_core.compressed import model_of
from prune_core.errors import ConfigError, SpeedupError, shown, warn
from prune_core.events import emit
from prune_core.masking import bare, check_model, wrappers_in
from prune_core.options import check_flags
from prune_core.progress import Task
from prune_core.traversal import named_tensors
from prune_speedup.compat import SPEEDUP
from prune_speedup.engine.units import Unit
from prune_speedup.gc_pause import collecting_later
from prune_speedup.torch.analysis import Analysis, is_outdated
from prune_speedup.torch.apply_plan import CannotFollowError, Cutting
from prune_speedup.torch.certificate.write import require_checker
from prune_speedup.torch.constants.zero import check_choice
from prune_speedup.torch.export_fallback import bake, exported
from prune_speedup.torch.heap import give_back
from prune_speedup.torch.masks import Masks, flat_masks
from prune_speedup.torch.optimizers import (
    check_optimizer,
    expect_optimizers,
    shrink_optimizer,
)
from prune_speedup.torch.record.inputs import listed
from prune_speedup.torch.report import SpeedupReport
from prune_speedup.torch.shrinking import Asked, shrunk
from prune_speedup.torch.tensors import Snapshot, cut_tensors

__all__ = ["ModelSpeedup", "make_small", "shrink", "tell"]

P = ParamSpec("P")

MOVED = 1e-5
"""From here on an output has moved by more than rounding moves it."""


def _without_what_runs_it(
    shrink: Callable[Concatenate[nn.Module, P], SpeedupReport],
) -> Callable[Concatenate[nn.Module, P], SpeedupReport]:
    """Shrink what `DataParallel` or `torch.compile` runs, so that names are those of its layers."""

    @wraps(shrink)
    def shrink_bare(model: nn.Module, /, *args: P.args, **kwargs: P.kwargs) -> SpeedupReport:
        model = model_of(model)
        with bare(model) as plain, Task("shrink", unit="stage"):
            report = shrink(plain, *args, **kwargs)
        if report.model is plain:
            report.model = model
        return report

    return shrink_bare


def shrink(
    model: nn.Module,
    example_inputs: Any,
    masks: Masks | str | PathLike[str] | None = None,
    *,
    units: Iterable[Unit] | None = None,
    constants: str = "exact",
    verify: bool = True,
    verify_inputs: Sequence[Any] = (),
    tolerance: float | None = None,
    measure: bool = False,
    fallback: bool = False,
    optimizer: Any = None,
    certificate: str | PathLike[str] | None = None,
) -> SpeedupReport:
    """Take out of a model, in place, what its masks make superfluous.

    Args:
        model: Any module; it stays the same Python object with smaller tensors.
        example_inputs: A tensor, a tuple of positional or a dict of keyword arguments.
        masks: `{module: {tensor: 0/1 tensor}}` or a file of them. Without masks and units, what
            the parameters' own zeros make superfluous.
        units: Units to remove instead, as found by `prune_core.units` on this model.
        constants: What to do where a masked channel still carries a constant, such as the bias of
            the normalisation after a masked convolution. `"exact"` moves it into the bias of the
            layer that reads it wherever that changes nothing, and leaves the channel and its mask
            elsewhere; `"keep"` moves nothing. `"fold"` also moves it where the layer pads with
            zeros, which changes what is computed at the edge, and `"remove"` besides leaves out
            what cannot be moved. `"zero"` masks all that belongs to a channel of which each layer
            is masked, constant or not. The report says by how much the output moved.
        verify: Compare the small model with the masked one and go back if they differ, on the
            example and on a batch of another size.
        verify_inputs: More inputs to compare them on, each in the form of `example_inputs`, or the
            name of one that is made of the example: `"random"` has numbers of its range,
            `"permuted"` its tokens in another order, `"length"` other lengths or resolutions, and
            `"training"` runs it in train mode. What the model does not accept of these is left out;
            `report.verified` names the rest.
        tolerance: The largest difference allowed, relative to the largest number of an output;
            by default what rounding does to the output's type (1e-4 for float32).
        measure: Time both models, and count what their results hold in memory.
        fallback: Where the forward cannot follow all that is to go, shrink the graph that
            `torch.export` makes of it instead of leaving what cannot go. Then the model stays as
            it was, and `report.model` is a graph module.
        optimizer: One that trains the model already, and is to go on with the smaller one: see
            `prune_core.shrink_optimizer`.
        certificate: Where to write a certificate of equality that `prune verify` checks, for every
            input of the example's sizes: a folder, which gets it and both models as files, or a
            file that ends in .json. `report.certificate` says what became of it.

    Raises:
        SpeedupError: The small model would compute something else, or the model is still
            wrapped; it is untouched.
        MaskError: The masks do not fit the model.

    Warns:
        PruneWarning: A notable share of what the masks ask for stays, or nothing was removed.
    """
    if optimizer is not None:
        check_optimizer(model_of(model), optimizer)
    report = make_small(
        model,
        example_inputs,
        masks,
        units=units,
        constants=constants,
        verify=verify,
        verify_inputs=verify_inputs,
        tolerance=tolerance,
        measure=measure,
        fallback=fallback,
        certificate=certificate,
    )
    tell(report)
    if optimizer is not None and report.form == "graph":
        warn(
            "report.model is a graph with parameters of its own, which the optimizer does not "
            "train; make one for it."
        )
    elif optimizer is not None:
        shrink_optimizer(optimizer, report)
    return report


def tell(report: SpeedupReport) -> None:
    """Tell listeners of a smaller model, and the user of what is not as small as was asked."""
    emit("prune_model_shrunk", model=report.model, report=report)
    if report.shortfall:
        warn(report.shortfall)
    if report.certificate is not None and report.certificate.reason:
        warn(
            "The model is smaller, but there is no certificate, and none was written: "
            f"{report.certificate.reason}."
        )
    if report.config is not None and report.config.missing and report.comparison is not None:
        warn(report.config.warning(type(report.model).__name__))


@collecting_later()
@_without_what_runs_it
def make_small(
    model: nn.Module,
    example_inputs: Any,
    masks: Masks | str | PathLike[str] | None = None,
    *,
    units: Iterable[Unit] | None = None,
    constants: str = "exact",
    verify: bool = True,
    verify_inputs: Sequence[Any] = (),
    tolerance: float | None = None,
    measure: bool = False,
    fallback: bool = False,
    certificate: str | PathLike[str] | None = None,
    cutting: Cutting = cut_tensors,
) -> SpeedupReport:
    """Do what `shrink` does, and tell nobody: for one step of several, which end in a summary.

    `cutting` makes the tensors smaller, where that is to be done otherwise.
    """
    check_choice(constants)
    check_flags(verify=verify, measure=measure, fallback=fallback)
    check_model(model, compiled=False)
    if certificate is not None:
        require_checker()
    if wrapped := wrappers_in(model):
        raise SpeedupError(
            f"{next(iter(wrapped))!r} is still wrapped by a pruner: take the wrappers off first, "
            "with prune_core.unwrap(model) or the pruner's own unwrap."
        )
    for name, tensor in named_tensors(model).items():
        if is_lazy(tensor):
            raise SpeedupError(
                f"{name!r} has no size yet; run the model once before shrinking it, or delete the "
                "layer if the forward does not use it."
            )
        if tensor.is_meta:
            raise SpeedupError(
                f"{name!r} is on the meta device: it has a shape and no numbers, so that nothing "
                "can be compared. prune_core.units(model, inputs) works there; to shrink the "
                "model, load it onto a real device."
            )
    verify_inputs = listed(verify_inputs)
    if not isinstance(tolerance, int | float | None):
        raise ConfigError(f"tolerance is {shown(tolerance)}; it must be a number, such as 1e-4.")
    asked = Asked(
        example_inputs,
        flat_masks(model, masks),
        None if units is None else list(units),
        constants,
        verify,
        verify_inputs,
        tolerance,
        measure,
        certificate,
        cutting,
    )
    untouched = Snapshot(model)
    states = [untouched]

    def attempted(model: nn.Module, before: Snapshot, *, yielding: bool = True) -> SpeedupReport:
        def attempt(used: list[Analysis]) -> SpeedupReport:
            return shrunk(model, asked, before, yielding=yielding, used=used)

        used = list[Analysis]()

        def outdated() -> bool:
            return True in [is_outdated(each, model, example_inputs) for each in used]

        # Nothing is refused, and nothing stays, because of what is remembered: a forward may read
        # what no fingerprint sees. The small model then does otherwise than was recorded.
        try:
            report = attempt(used)
        except SpeedupError:
            before.restore()
            if not outdated():
                raise
            return attempt([])
        if report.returned:
            small = Snapshot(model, before)
            before.restore()
            if outdated():
                return attempt([])
            small.restore()
        return report

    def fallen_back() -> SpeedupReport:
        """The model, if it follows in everything; else its graph; else what it can."""
        try:
            return attempted(model, untouched, yielding=False)
        except CannotFollowError as error:
            untouched.restore()
            cause = str(error)
        try:
            graph = exported(model, example_inputs)
        except SpeedupError:
            return attempted(model, untouched)
        states.append(Snapshot(graph))
        report = attempted(graph, states[-1])
        bake(graph)
        report.form, report.cause = "graph", cause
        return report

    try:
        report = fallen_back() if fallback else attempted(model, untouched)
    except BaseException:
        untouched.restore()
        raise
    for state in states:
        state.let_go()
    give_back(report.bytes[0])
    expect_optimizers(report)
    return report


class ModelSpeedup:
    """The two-step form of `shrink`: `ModelSpeedup(model, inputs, masks).speedup_model()`.

    Where `shrink` leaves masked channels of which a normalisation has made constants, this takes
    them out (`constants="remove"`), and warns of how far the output moved.

    Args:
        model: The model.
        dummy_input: What `shrink` calls `example_inputs`.
        masks_or_file: The masks, or a file of them.
        **options: Further arguments of `shrink`.
    """

    @understands(SPEEDUP)
    def __init__(
        self,
        model: nn.Module,
        dummy_input: Any,
        masks_or_file: Masks | str | PathLike[str] | None = None,
        **options: Any,
    ) -> None:
        """Keep the arguments of `shrink`."""
        self.model: nn.Module = model_of(model)
        self.dummy_input = dummy_input
        self.masks = masks_or_file
        self.options = options
        self.report: SpeedupReport | None = None

    def speedup_model(self) -> nn.Module:
        """Shrink the model in place and return it."""
        options = {"constants": "remove"} | self.options
        report = make_small(self.model, self.dummy_input, self.masks, **options)
        self.report = report
        if "constants" not in self.options and report.moved > MOVED:
            warn(
                f"The output of the example moved by {report.moved:.1e} of its largest number, "
                "because masked channels of which a normalisation had made constants were taken "
                "out; constants='exact' keeps those that cannot go without a change."
            )
        tell(report)
        return self.model
