"""Make a forward agree with its smaller tensors: find the sizes that it has written down.

An integer that a module keeps as an attribute (`num_heads`) is changed there; the others are
corrected where the source uses them (see `attributes` and `corrections`).
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from prune_speedup.engine.plan import Plan
from prune_speedup.torch.resize.as_it_is import follows_as_it_is
from prune_speedup.torch.resize.attributes import Changed, set_attributes
from prune_speedup.torch.resize.copying import keep_in_copies
from prune_speedup.torch.resize.literal_values import learn
from prune_speedup.torch.resize.run_small import Mismatch, attempt
from prune_speedup.torch.resize.smaller import correct, kept_attributes
from prune_speedup.torch.resize.traced_integers import Source

__all__ = ["Mismatch", "Repairs", "repair"]


@dataclass(slots=True)
class Repairs:
    """What was changed besides tensors, and what could not be.

    Attributes:
        attributes: What became of the integers that modules keep.
        corrections: (module, function of torch, expression) of the calls that are corrected.
        scaled: The inputs that showed that a number is to be scaled.
        unresolved: A mismatch that nothing helped.
    """

    attributes: Changed = field(default_factory=dict)
    corrections: list[tuple[str, str, str]] = field(default_factory=list)
    scaled: set[str] = field(default_factory=set)
    unresolved: Mismatch | None = None


def repair(
    model: nn.Module,
    example_inputs: Any,
    plan: Plan,
    others: Mapping[str, Any],
    staying: Collection[Source] = (),
) -> Repairs:
    """Repair until the small model does what the plan says, or nothing more helps.

    Args:
        model: The small model.
        example_inputs: What it runs on.
        plan: What it has to do.
        others: Other inputs, by what they are called, on which some sizes may be others.
        staying: Attributes that must not change; what they are told to is corrected at the calls.
    """
    repairs = Repairs()
    if follows_as_it_is(model, example_inputs, plan):
        return repairs
    trial = attempt(model, example_inputs, plan)
    trial = set_attributes(model, example_inputs, plan, trial, repairs.attributes, staying)
    if trial.mismatch is None and trial.needs:
        learned = learn(model, example_inputs, plan, trial.needs.values(), others)
        trial.mismatch = learned.mismatch
        if trial.mismatch is None:
            for name, corrections in learned.corrections.items():
                module = model.get_submodule(name)
                correct(module, corrections, tuple(kept_attributes(module).items()))
            repairs.corrections = [
                (name, site.function, str(made)) for name, site, made in learned.places
            ]
            repairs.scaled = learned.scaled
            trial = attempt(model, example_inputs, plan)
    if trial.mismatch is None and trial.needs:
        need = next(iter(trial.needs.values()))
        message = f"{need.site.function} stays wrong"
        trial.mismatch = Mismatch(need.position, need.site.module, message)
    repairs.unresolved = trial.mismatch
    if repairs.unresolved is None:
        for source in repairs.attributes:
            keep_in_copies(model, {source.module: [str(source.path[0])]})
    return repairs
