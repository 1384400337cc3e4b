"""Hold what a small model did in one case to what the masked one did."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

from prune_core.errors import SpeedupError
from prune_speedup.engine.graph import Graph
from prune_speedup.torch.proof.compare import Difference, compare
from prune_speedup.torch.proof.inside import Inside
from prune_speedup.torch.proof.two_states import CaseError
from prune_speedup.torch.record.case import Case
from prune_speedup.torch.record.data_dependent import Decisions, agree
from prune_speedup.torch.record.follower import Follower
from prune_speedup.torch.record.inputs import Found, found_in

__all__ = ["Seen", "Small", "held", "kept_by"]


class Small(NamedTuple):
    """What the small model did in one case.

    Attributes:
        returned: What it returned.
        kept: What it keeps afterwards.
        decided: What it saw where it decided something.
        recorded: Its forward, if that was recorded.
    """

    returned: Found
    kept: Found
    decided: Decisions = ()
    recorded: Graph | None = None


@dataclass(slots=True)
class Seen:
    """What the masked model did in one case.

    Attributes:
        returned: What it returned; the caches among that as the small model has them.
        kept: What it keeps afterwards, as the small model has it.
        inside: What its operators made.
        decided: What it saw where it decided something.
        narrower: Which of what it returned has fewer channels in the small model.
        from_outside: Whether what it returned is all that is compared.
        spread: How far the numbers spread of which it keeps a mean: see `Masked`.
    """

    returned: Found
    kept: Found
    inside: Inside
    decided: Decisions = field(default_factory=list)
    narrower: list[str] = field(default_factory=list)
    spread: Mapping[str, float] = field(default_factory=dict)
    from_outside: bool = False

    def apart(self, kept: Found, tolerance: float | None = None) -> Difference:
        """How far what is kept in another run is from what was kept in this one."""
        return compare(*_common(self.kept, kept), tolerance, self.spread)


def kept_by(run: Follower) -> Found:
    """What a model keeps that it has changed, by module and attribute."""
    kept = Found()
    for name, value in run.changed.items():
        found = found_in(value)
        for path, tensor in (*found.tensors.items(), *found.aside.items()):
            kept.tensors[f"{name}{path}"] = tensor
        for path, item in found.plain.items():
            if type(item) is float:  # a whole number may be a size, which is another on purpose
                kept.plain[f"{name}{path}"] = item
    return kept


def held(
    case: Case,
    seen: Seen,
    small: Small,
    tolerance: float | None,
    *,
    inside: bool = True,
) -> Difference:
    """Hold what the small model did to what the masked one did."""
    apart = partial(CaseError, case, runs=True)
    if case.name == "the example" and not agree(seen.decided, small.decided):
        raise SpeedupError(
            "The small model decides otherwise than the masked one, in a choice that its "
            "forward makes by looking at numbers; the model is left as it was."
        )
    on = "" if case.name == "the example" else f" of {case.name}"
    difference = compare(seen.returned, small.returned, tolerance)
    if not difference.ok:
        raise apart(
            rounds=difference.rounds,
            message=f"The small model differs from the masked one by {difference.relative:.2e} "
            f"(relative) in {difference.where}{on}, where "
            f"{difference.tolerance:.0e} is allowed; the model is left as it was.",
        )
    kept = seen.apart(small.kept, tolerance)
    if not kept.ok:
        raise apart(
            rounds=kept.rounds,
            message=f"After {case.name} the small model keeps other numbers than the masked one in "
            f"{kept.where!r}: they differ by {kept.relative:.2e} (relative), where "
            f"{kept.tolerance:.0e} is allowed; the model is left as it was.",
        )
    worst, where = seen.inside.worst() if inside else (0.0, "")
    if worst > 1:
        raise apart(
            message=f"Inside, the small model computes other numbers than the masked one: in "
            f"{where}, on {case.name}. What it returns need not show it. The model is "
            "left as it was."
        )
    if not (seen.inside.compared or seen.returned.tensors or seen.returned.plain):
        raise SpeedupError(
            f"On {case.name} the model computes nothing that could be compared: it returns neither "
            "tensors nor numbers. The model is left as it was."
        )
    return difference


def _common(masked: Found, small: Found) -> tuple[Found, Found]:
    """What both keep. Only a part of a buffer may have changed, and that part may be gone."""
    left, right = Found(), Found()
    for path, tensor in masked.tensors.items():
        if path in small.tensors:
            left.tensors[path], right.tensors[path] = tensor, small.tensors[path]
    for path in masked.plain.keys() & small.plain.keys():
        left.plain[path], right.plain[path] = masked.plain[path], small.plain[path]
    return left, right
