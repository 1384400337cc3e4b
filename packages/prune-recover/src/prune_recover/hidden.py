"""Hidden states of a student beside those of its teacher, which may be wider."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from prune_core.errors import ConfigError
from prune_recover.losses import hidden_error

__all__ = ["HiddenStates"]

RIDGE = 1e-3
"""Of the mean square of the student's features, added to their Gram matrix."""


class HiddenStates:
    """Compares hidden states, pair by pair.

    Where a pair differs in width, a matrix maps the student's onto the teacher's. It begins as the
    least-squares fit on one batch, and is trained with the student.

    Args:
        pairs: `{layer of the student: layer of the teacher}`; layers named alike in both may be
            given as a list.
        project: Whether widths may differ.

    Attributes:
        pairs: The same, as a dict.
        maps: The matrices, by the name of the student's layer.
    """

    def __init__(self, pairs: Mapping[str, str] | Sequence[str], *, project: bool) -> None:
        if isinstance(pairs, str):
            pairs = [pairs]
        self.pairs = dict(pairs) if isinstance(pairs, Mapping) else {name: name for name in pairs}
        self.project = project
        self.maps = nn.ParameterDict()

    def fit(self, student: Mapping[str, list[Tensor]], teacher: Mapping[str, list[Tensor]]) -> None:
        """Make the matrices that are needed, from what both models gave for one batch."""
        for name, other in self.pairs.items():
            ours, theirs = _matched(name, other, student, teacher)[0]
            axis = _channels(name, other, ours, theirs)
            if axis is None:
                continue
            self._check(name, other, ours.shape[axis], theirs.shape[axis])
            x = ours.detach().movedim(axis, -1).flatten(0, -2).double()
            y = theirs.detach().movedim(axis, -1).flatten(0, -2).double()
            gram = x.t() @ x
            gram.diagonal().add_(RIDGE * gram.diagonal().mean() + 1e-12)
            self.maps[_key(name)] = nn.Parameter(torch.linalg.solve(gram, x.t() @ y).float())

    def error(
        self,
        student: Mapping[str, list[Tensor]],
        teacher: Mapping[str, list[Tensor]],
        tokens: Tensor | None,
    ) -> Tensor:
        """Return the mean error over all pairs."""
        errors = []
        for name, other in self.pairs.items():
            for ours, theirs in _matched(name, other, student, teacher):
                axis = _channels(name, other, ours, theirs)
                seen = ours
                if axis is not None:
                    self._check(name, other, ours.shape[axis], theirs.shape[axis])
                    if _key(name) not in self.maps:
                        raise ConfigError(
                            f"{name!r} is {ours.shape[axis]} wide and the teacher's {other!r} "
                            f"{theirs.shape[axis]}, and there is no matrix between them yet. Call "
                            "prepare(batch) first, and give parameters() to the optimizer."
                        )
                    matrix = self.maps[_key(name)].to(ours)
                    seen = (ours.movedim(axis, -1) @ matrix).movedim(-1, axis)
                errors.append(hidden_error(seen, theirs.to(seen.device), tokens))
        return torch.stack(errors).mean()

    def _check(self, name: str, other: str, width: int, wanted: int) -> None:
        if not self.project:
            raise ConfigError(
                f"{name!r} is {width} wide in the student, and {other!r} is {wanted} wide in the "
                "teacher, so they cannot be compared as they are. Say project=True to learn a "
                "matrix between the two, or choose layers that are equally wide, such as whole "
                "blocks of a transformer."
            )


def _key(name: str) -> str:
    return name.replace(".", "/")  # a ParameterDict takes no dots


def _matched(
    name: str, other: str, student: Mapping[str, list[Tensor]], teacher: Mapping[str, list[Tensor]]
) -> list[tuple[Tensor, Tensor]]:
    ours, theirs = student.get(name, []), teacher.get(other, [])
    for layer, found, role in ((name, ours, "student"), (other, theirs, "teacher")):
        if not found:
            raise ConfigError(
                f"{layer!r} of the {role} returned no tensor in this call: it was not run, or it "
                "returns something else. Choose another layer in hidden=."
            )
    if len(ours) != len(theirs):
        raise ConfigError(
            f"{name!r} ran {len(ours)} times in the student and {other!r} {len(theirs)} times in "
            "the teacher, so it is unclear what to compare."
        )
    return list(zip(ours, theirs, strict=True))


def _channels(name: str, other: str, ours: Tensor, theirs: Tensor) -> int | None:
    """Return the axis at which two hidden states differ in width, or None."""
    if ours.ndim == theirs.ndim:
        axes = [axis for axis in range(ours.ndim) if ours.shape[axis] != theirs.shape[axis]]
        if not axes:
            return None
        if len(axes) == 1 and axes[0] > 0:
            return axes[0]
    raise ConfigError(
        f"{name!r} returns {tuple(ours.shape)} in the student, and {other!r} returns "
        f"{tuple(theirs.shape)} in the teacher; they may differ in one axis, their width. Choose "
        "layers that stand at the same place."
    )
