"""How the models of a proof are run: with a look at all results, at the calls alone, or at none."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch import nn

from prune_speedup.engine.graph import Call, Graph
from prune_speedup.torch.cost import flops_of_call
from prune_speedup.torch.proof.inside import Inside
from prune_speedup.torch.record.data_dependent import Decisions
from prune_speedup.torch.record.follower import Follower
from prune_speedup.torch.record.operators import Operator, operator_of
from prune_speedup.torch.record.recorder import Recorder
from prune_speedup.torch.rules import has_rule

__all__ = ["Checking", "InStep", "Recording", "Unseen"]


class Checking(Follower):  # type: ignore[no-untyped-call]
    """Holds what each operator of the small model makes to what it made in the masked one.

    Attributes:
        flops: What the first run of the model did.
    """

    def __init__(
        self, model: nn.Module, inside: Inside, decisions: Decisions | None, *, counting: bool
    ) -> None:
        super().__init__(model, has_rule, decisions)
        self._inside, self._counting = inside, counting
        self.flops = 0

    def once(self, example_inputs: Any) -> Any:
        """Run the model once."""
        try:
            return super().once(example_inputs)
        finally:
            self._counting = False

    def followed(
        self, operator: Operator, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any
    ) -> None:
        """Compare what was made."""
        if self._counting:
            self.flops += flops_of_call(operator.target, args, kwargs, result)
        self._inside.check(operator, (args, kwargs), result)


class Unseen(Follower):  # type: ignore[no-untyped-call]
    """Runs a model without a look at its calls."""

    def _watching(self) -> AbstractContextManager[Any]:
        return nullcontext()


class InStep(Follower):  # type: ignore[no-untyped-call]
    """Sees whether a model makes the calls that were recorded on the example, and no others."""

    def __init__(self, model: nn.Module, graph: Graph) -> None:
        super().__init__(model, has_rule)
        calls = reversed(graph.calls)
        self._waiting = [each.target for each in calls if not isinstance(each.target, str)]
        self._in_step = True

    def follow(self, operator: Operator, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Make a call, and look whether it is the next one."""
        known = self._waiting.pop() if self._waiting else None
        self._in_step = self._in_step and known is operator.target
        return super().follow(operator, args, kwargs)

    @property
    def ended_in_step(self) -> bool:
        """Whether it made all of them."""
        return self._in_step and not self._waiting


class Recording(Recorder):  # type: ignore[no-untyped-call]
    """Does what `Checking` does, and writes the calls down."""

    def __init__(self, model: nn.Module, inside: Inside, decisions: Decisions | None) -> None:
        super().__init__(model, has_rule, decisions=decisions, located=False)
        self._inside = inside

    def watched(self, call: Call, result: Any) -> None:
        """Compare what was made."""
        self._inside.check(operator_of(call.target), (call.args, call.kwargs), result)
