"""Take experts out of the mixtures of a model, and prove that nothing else has changed.

What an expert consists of goes at once: its row of the router, its slices of tensors or its module
in a list, and one of the number of experts. The small model has to compute what the model computed
in which nobody chooses the removed experts (see `without`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from prune_core.errors import ConfigError, SpeedupError, did_you_mean, nearest, shown, warn
from prune_core.events import emit
from prune_core.masking import bare, check_model, wrappers_in
from prune_speedup.engine.labels import Array
from prune_speedup.torch.layers import layer_sizes
from prune_speedup.torch.measure import Taken, taken_by
from prune_speedup.torch.mixtures.counts import (
    Attribute,
    Carrier,
    attributes_by_config,
    by_config,
    by_name,
    carrier_of,
    describe,
    put_counts,
    values_by_layer,
)
from prune_speedup.torch.mixtures.find import experts as found_experts
from prune_speedup.torch.mixtures.mixture import Experts, Mixture
from prune_speedup.torch.mixtures.without import ExpertsProof
from prune_speedup.torch.model_config.build import built_like, shapes_of
from prune_speedup.torch.model_config.numbers import Values, integers
from prune_speedup.torch.optimizers import expect_optimizers
from prune_speedup.torch.record.inputs import listed
from prune_speedup.torch.report import Change, SpeedupReport
from prune_speedup.torch.resize.layers import resize
from prune_speedup.torch.saving import put_config
from prune_speedup.torch.surgery import (
    keep_children,
    plain_attributes,
    record_surgery,
    shapes_of_tensors,
)
from prune_speedup.torch.tensors import Snapshot, cut_slices

__all__ = ["check_experts", "remove_experts", "take_out"]

Left = dict[str, tuple[Mixture, list[int]]]
Kept = Mapping[str, Mapping[int, Array]]


def remove_experts(
    model: nn.Module,
    example_inputs: Any,
    experts: Mapping[str, Iterable[int]],
    *,
    verify: bool = True,
    verify_inputs: Sequence[Any] = (),
    tolerance: float | None = None,
) -> SpeedupReport:
    """Take experts out of a model, in place.

    Args:
        model: Any module; it stays the same Python object.
        example_inputs: A tensor, a tuple of positional or a dict of keyword arguments.
        experts: The numbers of the experts that go, by the name of the mixture, as listed by
            `prune_core.experts(model, example_inputs)`.
        verify: Compare the small model with the one in which the router never chooses the removed
            experts, on the example, another batch, other lengths and in training, and go back if
            they differ.
        verify_inputs: More inputs to compare them on, each in the form of `example_inputs`.
        tolerance: The largest difference allowed, relative to the largest number of an output; by
            default what rounding does to the output's type.

    Raises:
        ConfigError: There is no such mixture or expert, or too few would be left.
        SpeedupError: The small model would compute something else. The model is untouched.

    Warns:
        PruneWarning: The model's config cannot describe it, so `save_pretrained` is refused.

    Example:
        >>> import torch
        >>> class Mixture(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.router = nn.Linear(4, 3)
        ...         self.experts = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))
        ...
        ...     def forward(self, x):
        ...         gates = self.router(x).softmax(-1)
        ...         return sum(gates[:, i, None] * e(x) for i, e in enumerate(self.experts))
        >>> model, x = Mixture(), torch.randn(5, 4)
        >>> report = remove_experts(model, x, {"": [1]})
        >>> len(model.experts), model.router
        (2, Linear(in_features=4, out_features=2, bias=True))
    """
    with bare(model) as plain:
        report = take_out(
            plain,
            example_inputs,
            experts,
            verify=verify,
            verify_inputs=verify_inputs,
            tolerance=tolerance,
        )
    if report.model is plain:
        report.model = model
    emit("prune_model_shrunk", model=report.model, report=report)
    if report.config is not None and report.config.missing:
        warn(report.config.warning(type(plain).__name__))
    return report


def take_out(
    model: nn.Module,
    example_inputs: Any,
    experts: Mapping[str, Iterable[int]],
    *,
    verify: bool = True,
    verify_inputs: Sequence[Any] = (),
    tolerance: float | None = None,
    cutting: Callable[[nn.Module, Kept], None] = cut_slices,
) -> SpeedupReport:
    """Do what `remove_experts` does, and tell nobody.

    `cutting` makes the tensors smaller, where that is to be done otherwise.
    """
    check_model(model, compiled=False)
    if wrapped := wrappers_in(model):
        raise SpeedupError(
            f"{next(iter(wrapped))!r} is still wrapped by a pruner: take the wrappers off first, "
            "with prune_core.unwrap(model) or the pruner's own unwrap."
        )
    verify_inputs = listed(verify_inputs)
    left = check_experts(found_experts(model, example_inputs), experts)
    report = SpeedupReport(model)
    took = taken_by(model)
    report.parameters, report.zeros, report.bytes = zip(took, took, strict=True)
    if not left:
        report.shortfall = "No expert was named, so that nothing was removed."
        warn(report.shortfall)
        return report
    attributes, sizes = plain_attributes(model), shapes_of_tensors(model)
    carrier = carrier_of(model, left)
    numbers = dict(integers(carrier.config)) if carrier is not None else {}
    original = Snapshot(model)
    try:
        # Without a config only a comparison shows which attributes count the experts.
        needed = verify or carrier is None
        proof = (
            ExpertsProof(model, example_inputs, verify_inputs, left, tolerance) if needed else None
        )
        cutting(model, _slices(left))
        for name, stay in _children(left).items():
            keep_children(model.get_submodule(name), stay)
        resize(model)
        values, why = _counted(model, left, carrier, proof)
        report.config = describe(model, example_inputs, carrier, values, numbers, why=why)
    except BaseException:
        original.restore()
        raise
    after = plain_attributes(model)
    report.attributes = [
        (module, name, old, after[module][name])
        for module, before in attributes.items()
        for name, old in before.items()
        if module in after and after[module].get(name, old) != old
    ]
    record_surgery(model, attributes, sizes, report.config, {}, _children(left))
    if proof is not None and verify:
        report.comparison, report.verified = proof.difference, proof.inputs
        report.flops = proof.flops
    _describe(report, left, sizes, took)
    report.layers = layer_sizes(model, sizes, report.slices, attributes)
    expect_optimizers(report)
    return report


def check_experts(found: Experts, experts: Mapping[str, Iterable[int]]) -> Left:
    """Return, by mixture, which experts stay; refuse what leaves no routing."""
    if not len(found):
        raise ConfigError(
            "The model has no mixture of experts: no layer was seen to choose among, or to weigh, "
            "slices of a tensor or modules of a list. Give example inputs that reach it."
        )
    if not isinstance(experts, Mapping):
        raise ConfigError(
            f"experts is {shown(experts)}; it must say which experts go of which mixture, such as "
            f"{{{found[0].name!r}: [0]}}."
        )
    left: Left = {}
    for name, numbers in experts.items():
        if name not in found:
            names = [mixture.name for mixture in found]
            raise ConfigError(
                f"The model has no mixture of experts {name!r}."
                f"{did_you_mean(str(name), names) or nearest(str(name), names)}"
            )
        mixture, gone = found[name], list(numbers)
        for number in gone:
            if type(number) is not int or not 0 <= number < mixture.experts:
                raise ConfigError(
                    f"{name!r} has no expert {number!r}; its {mixture.experts} experts are "
                    f"numbered from 0 to {mixture.experts - 1}."
                )
        stay = [number for number in range(mixture.experts) if number not in gone]
        if gone:
            _check_what_is_left(mixture, stay)
            left[name] = mixture, stay
    return left


def _check_what_is_left(mixture: Mixture, stay: list[int]) -> None:
    name = repr(mixture.name) if mixture.name else "The model"
    if len(stay) < (mixture.top_k or 1):
        needs = f"sends each token to {mixture.top_k}" if mixture.top_k else "needs one at least"
        raise ConfigError(
            f"{name} would have {len(stay)} of its {mixture.experts} experts left, and it {needs}. "
            f"Leave {mixture.least} or more."
        )
    groups = mixture.groups
    if groups is None or groups.count == 1:
        if len(stay) < mixture.least:
            raise ConfigError(f"{name} needs {mixture.least} experts; {len(stay)} would be left.")
        return
    counts = [
        sum(mixture.group_of(each) == group for each in stay) for group in range(groups.count)
    ]
    if len(set(counts)) > 1:
        raise ConfigError(
            f"{name} chooses among {groups.count} groups of experts, which have to stay equally "
            f"large; {', '.join(map(str, counts))} would be left in them. Take the same number of "
            "experts out of each group."
        )
    if len(stay) < mixture.least:
        raise ConfigError(
            f"{name} chooses {mixture.top_k} experts out of {groups.chosen} of its {groups.count} "
            f"groups, by the best {groups.looked_at} of each; so {mixture.least} experts have to "
            f"stay, and {len(stay)} would be left."
        )


def _slices(left: Left) -> dict[str, dict[int, Array]]:
    """What stays of the tensors that have something for each expert."""
    kept: dict[str, dict[int, Array]] = {}
    for mixture, stay in left.values():
        for name, axis in mixture.places:
            kept.setdefault(name, {})[axis] = np.array(stay)
    return kept


def _children(left: Left) -> dict[str, list[int]]:
    """Which modules stay of the lists that have one for each expert."""
    return {name: stay for mixture, stay in left.values() for name in mixture.lists}


def _counted(
    model: nn.Module, left: Left, carrier: Carrier | None, proof: ExpertsProof | None
) -> tuple[Values, str]:
    """Let the model know how many experts it has, so that it passes the proof.

    Several attributes may count them; they are tried until the model computes what it has to.

    Returns:
        The numbers of its config that have changed, or why none describes it.
    """
    cut = Snapshot(model)
    failure: SpeedupError | None = None
    for counts, values, why in _ways(model, left, carrier):
        put_counts(model, counts)
        if values and carrier is not None:
            put_config(model, carrier.config, values)
        try:
            if proof is not None:
                proof.check()
        except SpeedupError as error:
            failure = failure or error
            cut.restore()
            continue
        return values, why
    assert failure is not None
    raise failure


def _ways(
    model: nn.Module, left: Left, carrier: Carrier | None
) -> Iterator[tuple[dict[Attribute, int], Values, str]]:
    """Which attributes and which numbers of a config to change, the likeliest first."""
    why = "no numbers of experts in it make this model"
    known = by_config(carrier, left) if carrier is not None else {}
    if carrier is not None and len(known) == len(left):
        own: dict[Attribute, int] = {}
        for name, (mixture, _) in left.items():
            counts = attributes_by_config(carrier, known[name])
            if shapes_of(built_like(carrier.module, known[name])) == shapes_of(carrier.module):
                yield counts, known[name], ""
            own |= {at: new for at, new in counts.items() if _within(at[0], mixture.name)}
        by_layer = values_by_layer(carrier, {name: known[name] for name in left})
        if by_layer and shapes_of(built_like(carrier.module, by_layer)) == shapes_of(
            carrier.module
        ):
            yield own, by_layer, ""
        why = "it knows one number of experts for all mixtures, and they have different ones"
        yield own, {}, why
    for counts in by_name(model, left):
        yield counts, {}, why


def _describe(
    report: SpeedupReport, left: Left, sizes: Mapping[str, tuple[int, ...]], took: Taken
) -> None:
    """Note which tensors and lists became smaller."""
    model = report.model
    now = shapes_of_tensors(model)
    for mixture, stay in left.values():
        report.removed += mixture.experts - len(stay)
        report.experts[mixture.name] = mixture.experts, list(stay)
        for name, axis in mixture.places:
            report.changes.append(Change(name, sizes[name], now[name]))
            report.slices[name] = {axis: torch.tensor(stay, device="cpu")}
        report.changes += [
            Change(f"{name}.*", (mixture.experts,), (len(stay),)) for name in mixture.lists
        ]
    report.parameters, report.zeros, report.bytes = zip(took, taken_by(model), strict=True)


def _within(name: str, module: str) -> bool:
    return not module or name == module or name.startswith(f"{module}.")
