"""What a model without some experts has to compute: the model as it was, with their logits at -∞.

An expert whose logit is -∞ has no share in any softmax and is nobody's choice. Where the choice
looks at more than the logit, as with a bias that balances the load, that is -∞ as well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import nn

from prune_speedup.engine.graph import Call, name_of
from prune_speedup.torch.heads import CONTRACTIONS
from prune_speedup.torch.mixtures.mixture import Mixture
from prune_speedup.torch.proof.compare import Difference
from prune_speedup.torch.proof.without import NEVER, ProofWithout
from prune_speedup.torch.record.inputs import Found
from prune_speedup.torch.record.recorder import Recorder
from prune_speedup.torch.rules import has_rule

__all__ = ["ExpertsProof", "WithoutExperts"]

_ADDS = frozenset({"add", "add_", "sub", "sub_", "rsub"})


class WithoutExperts(Recorder):  # type: ignore[no-untyped-call]
    """A recorder in whose forward some experts are never chosen."""

    def __init__(
        self, model: nn.Module, removed: Mapping[str, tuple[Mixture, list[int]]], never: float
    ) -> None:
        """Run `model` as it was.

        Args:
            model: The model.
            removed: Which experts of which mixture are not to be chosen, by the mixture's name.
            never: What their logits are.
        """
        super().__init__(model, has_rule, self._follow)
        self._never = never
        self._gone: dict[str, tuple[int, list[int]]] = {}
        self._biases: dict[str, tuple[int, list[int]]] = {}
        for mixture, places in removed.values():
            gone = mixture.experts, places
            self._gone |= {name: gone for name, _ in mixture.router}
            self._biases |= {name: gone for name, _ in mixture.corrections}
        first = {name: names[0] for names in self._names.values() for name in names}
        self._named = {
            id(tensor): frozenset({first[name]})
            for name, tensor in self._tensors
            if first[name] in self._gone.keys() | self._biases.keys()
        }
        self._made_of: dict[int, frozenset[str]] = {}

    def _behind(self, tensor: torch.Tensor) -> frozenset[str]:
        """The tensors of a router that this one is made of, and of nothing else."""
        if id(tensor) in self._named:
            return self._named[id(tensor)]
        number = self._numbers.get(tensor)
        return frozenset() if number is None else self._made_of.get(number, frozenset())

    def execute(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run one operator, and let what it says of removed experts be that they are not there."""
        result = super().execute(func, args, kwargs)
        tensors = [arg for arg in (*args, *kwargs.values()) if isinstance(arg, torch.Tensor)]
        names = [self._behind(tensor) for tensor in tensors]
        if not any(names) or all(names):
            return result
        name = name_of(func)
        table = self._gone if name in CONTRACTIONS else self._biases if name in _ADDS else {}
        for size, places in {
            each[0]: each[1] for of in names for key in of if (each := table.get(key)) is not None
        }.items():
            axis = 1 if name == "convolution" else result.ndim - 1
            if result.shape[axis] == size:
                where = torch.tensor(places, device=result.device)
                result.index_fill_(axis, where, self._never)
        return result

    def _follow(self, recorder: Recorder, call: Call, result: Any) -> None:
        inputs = call.inputs()
        names = [self._made_of.get(value) or self._of_tensor(value) for value in inputs]
        if names and all(names):
            together = frozenset().union(*names)
            self._made_of |= {value: together for value in call.outputs if value is not None}

    def _of_tensor(self, value: int) -> frozenset[str]:
        names = self.graph.tensors.get(value, ())
        return frozenset(names[:1]) & (self._gone.keys() | self._biases.keys())


class ExpertsProof(ProofWithout):
    """What a model computed before experts were removed, and has to compute after."""

    what: ClassVar[str] = "experts"

    def __init__(
        self,
        model: nn.Module,
        example_inputs: Any,
        verify_inputs: Sequence[Any],
        left: Mapping[str, tuple[Mixture, list[int]]],
        tolerance: float | None,
    ) -> None:
        """Run the model as it is, with no token sent to the experts that will go."""
        self._removed = {
            name: (mixture, sorted({*range(mixture.experts)} - {*stay}))
            for name, (mixture, stay) in left.items()
        }
        super().__init__(model, example_inputs, verify_inputs, tolerance)

    def recorder(self, never: float) -> Recorder:
        """Return what runs the model as it was, with the experts' logits at `never`."""
        return WithoutExperts(self._model, self._removed, never)

    def as_small(self, expected: Found, found: Found) -> Found:
        """What was returned, without the places of experts that are gone."""
        for path, tensor in expected.tensors.items():
            other = found.tensors.get(path)
            if other is None or other.ndim != tensor.ndim:
                continue
            for axis, (size, left) in enumerate(zip(tensor.shape, other.shape, strict=True)):
                if left < size and tensor.is_floating_point():
                    flat = tensor.movedim(axis, 0).flatten(1)
                    there = ~((flat <= NEVER[1]) | (flat == 0)).all(1)
                    if int(there.sum()) == left:
                        tensor = tensor.index_select(axis, there.nonzero()[:, 0])
            expected.tensors[path] = tensor
        return expected

    def hint(self, expected: Found, difference: Difference) -> str:
        """Say that a loss may depend on how many experts there are."""
        tensor = expected.tensors.get(difference.where)
        if tensor is None or tensor.ndim:
            return ""
        return (
            " A loss that spreads tokens evenly depends on how many experts there are: leave it "
            "out of the example (output_router_logits=False in models of transformers)."
        )
