"""What a model without some tokens has to compute: the model as it was, with their logits at −∞."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from prune_speedup.engine.graph import Call, name_of
from prune_speedup.torch.heads import CONTRACTIONS
from prune_speedup.torch.proof.compare import Difference
from prune_speedup.torch.proof.without import ProofWithout
from prune_speedup.torch.record.inputs import Found, arguments, tensors_in
from prune_speedup.torch.record.recorder import Recorder
from prune_speedup.torch.rules import has_rule
from prune_speedup.torch.vocabulary.token_map import TokenMap
from prune_speedup.torch.vocabulary.vocabulary import Vocabulary

__all__ = ["Ids", "TokensProof"]

_WEIGHS = frozenset({"_softmax", "_log_softmax", "softmax", "log_softmax", "logsumexp", "sum"})


@dataclass(frozen=True, slots=True)
class Ids:
    """The token ids in the inputs of a model, before and after tokens were removed.

    Attributes:
        paths: The inputs that hold ids.
        tokens: Which tokens stay.
    """

    paths: frozenset[str]
    tokens: TokenMap

    def before(self, inputs: Any) -> Any:
        """The inputs with tokens that stay in the place of those that go."""
        stay = torch.tensor(self.tokens.old_ids)
        table = stay[torch.arange(self.tokens.before) % len(stay)]
        table[stay] = stay
        return self._changed(inputs, table)

    def after(self, inputs: Any) -> Any:
        """The same inputs in new ids."""
        table = torch.arange(self.tokens.before) % len(self.tokens)
        table[self.tokens.old_ids] = torch.arange(len(self.tokens))
        return self._changed(inputs, table)

    def _changed(self, inputs: Any, table: Tensor) -> Any:
        given = arguments(inputs)
        ids = {id(tensor) for path, tensor in tensors_in(given) if path in self.paths}

        def change(tree: Any) -> Any:
            if isinstance(tree, Tensor) and id(tree) in ids:
                inside = (tree >= 0) & (tree < len(table))
                places = tree.clamp(0, len(table) - 1).long()
                return torch.where(inside, table.to(tree.device)[places].to(tree.dtype), tree)
            if isinstance(tree, Mapping):
                return {key: change(item) for key, item in tree.items()}
            if type(tree) in (list, tuple):
                return type(tree)(change(item) for item in tree)
            return tree

        return change(inputs)


class _WithoutTokens(Recorder):  # type: ignore[no-untyped-call]
    """A recorder in whose forward some tokens are never chosen.

    The logits are followed through what is done to each of them, such as a bias or a cap, until
    something weighs them against each other.
    """

    def __init__(self, model: nn.Module, heads: set[str], size: int, gone: Tensor, never: float):
        super().__init__(model, has_rule, self._follow)
        self._size, self._gone, self._never = size, gone, never
        first = {name: names[0] for names in self._names.values() for name in names}
        self._heads = {id(t) for name, t in self._tensors if first[name] in heads}
        self._of_heads: set[int] = set()
        self._logits: set[int] = set()
        self._now = False

    def execute(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run one operator, and let the logits of tokens that are gone stay at −∞."""
        result = super().execute(func, args, kwargs)
        name = name_of(func)
        tensors = [arg for arg in (*args, *kwargs.values()) if isinstance(arg, Tensor)]
        numbers = {self._numbers.get(tensor) for tensor in tensors}
        made = name in CONTRACTIONS and any(
            id(tensor) in self._heads or number in self._of_heads
            for tensor, number in zip(tensors, map(self._numbers.get, tensors), strict=True)
        )
        kept = name not in CONTRACTIONS | _WEIGHS and not self._logits.isdisjoint(numbers - {None})
        self._now = (
            (made or kept)
            and isinstance(result, Tensor)
            and result.is_floating_point()
            and result.ndim > 0
            and result.shape[-1] == self._size
        )
        if self._now:
            result.index_fill_(-1, self._gone.to(result.device), self._never)
        return result

    def _follow(self, recorder: Recorder, call: Call, result: Any) -> None:
        outputs = {value for value in call.outputs if value is not None}
        if self._now:
            self._logits |= outputs
        inputs = call.inputs()
        if inputs and all(value in self._of_heads or self._is_head(value) for value in inputs):
            self._of_heads |= outputs

    def _is_head(self, value: int) -> bool:
        names = self.graph.tensors.get(value, ())
        return any(id(tensor) in self._heads for name, tensor in self._tensors if name in names[:1])


class TokensProof(ProofWithout):
    """What a model computed before tokens were removed, and has to compute after."""

    what: ClassVar[str] = "tokens"

    def __init__(
        self,
        model: nn.Module,
        example_inputs: Any,
        verify_inputs: Sequence[Any],
        vocabulary: Vocabulary,
        tokens: TokenMap,
        tolerance: float | None,
    ) -> None:
        """Run the model as it is, with no token chosen that will go."""
        self._heads = {name for name, _ in vocabulary.heads}
        self._tokens = tokens
        self._ids = Ids(frozenset(vocabulary.inputs), tokens)
        gone = torch.ones(vocabulary.size, dtype=torch.bool)
        gone[tokens.old_ids] = False
        self._gone = gone.nonzero()[:, 0]
        super().__init__(model, example_inputs, verify_inputs, tolerance)

    def recorder(self, never: float) -> Recorder:
        """Return what runs the model as it was, with the logits of what goes at `never`."""
        return _WithoutTokens(self._model, self._heads, self._tokens.before, self._gone, never)

    def before(self, inputs: Any) -> Any:
        """The inputs, with tokens that stay in the place of those that go."""
        return self._ids.before(inputs)

    def after(self, inputs: Any) -> Any:
        """The same inputs in new ids."""
        return self._ids.after(inputs)

    def as_small(self, expected: Found, found: Found) -> Found:
        """What was returned, without the places of tokens that are gone."""
        stay = torch.tensor(self._tokens.old_ids)
        for path, tensor in expected.tensors.items():
            other = found.tensors.get(path)
            if other is None or other.ndim != tensor.ndim:
                continue
            for axis, (size, left) in enumerate(zip(tensor.shape, other.shape, strict=True)):
                if (size, left) == (self._tokens.before, len(stay)) and size != left:
                    tensor = tensor.index_select(axis, stay.to(tensor.device))
            expected.tensors[path] = tensor
        return expected

    def hint(self, expected: Found, difference: Difference) -> str:
        """Say that a loss may look at tokens that are gone."""
        tensor = expected.tensors.get(difference.where)
        if tensor is not None and not tensor.ndim:
            return (
                " A loss that spreads over all tokens, as label smoothing does, depends on how "
                "many there are: leave the labels out of the example."
            )
        return (
            " A model that computes with token ids, as where positions begin behind the id of the "
            "padding, needs these ids as they are: keep all tokens before them as well."
        )
