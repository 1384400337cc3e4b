"""What experts do on data: how many tokens they get, and how much they add to the result.

A mixture returns the sum of what its experts return, each weighed by the router: `Σ g_e(x) f_e(x)`.
Three numbers of each expert are gathered:

- how many tokens are sent to it,
- the sum of `‖f_e(x)‖` over these,
- and the sum of `g_e(x) ‖f_e(x)‖`, which is how far the result moves without this expert.

Most mixtures hand a module the experts that were chosen and their weights; then it is called with
one choice at a time, which costs one forward. Any other mixture is run once more for each expert,
with that expert silent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from prune_speedup.torch.mixtures.mixture import Experts, Mixture
from prune_toolkit.calibration.watch import padding_of
from prune_toolkit.running.restore import only_run

__all__ = ["Statistics", "gather"]

_SAME = 1e-3
"""How far a weighted sum of single choices may be from what a module returns for all of them."""


@dataclass(slots=True)
class Statistics:
    """What was seen of one mixture.

    Attributes:
        experts: How many experts it has.
        tokens: How many tokens came by.
        routed: How many of them each expert got.
        added: The sum of `g ‖f‖` over the tokens of each expert.
        norms: The sum of `‖f‖`; None where what an expert returns is not to be seen by itself.
    """

    experts: int
    tokens: int = 0
    routed: Tensor = field(init=False)
    added: Tensor = field(init=False)
    norms: Tensor | None = field(init=False)

    def __post_init__(self) -> None:
        """Begin with nothing."""
        self.routed, self.added, self.norms = (
            torch.zeros(self.experts, dtype=torch.float64, device="cpu") for _ in range(3)
        )


def gather(
    model: nn.Module, found: Experts, calibrate: Callable[[nn.Module], Any]
) -> dict[str, Statistics]:
    """Run a model on data and watch the experts of its mixtures.

    Args:
        model: The model; only run, in eval mode.
        found: Its mixtures.
        calibrate: Runs it on some batches.
    """
    watchers = {mixture.name: _Watcher(model, mixture) for mixture in found}
    padding: list[Tensor | None] = [None]

    def begin(module: nn.Module, args: Any, kwargs: Any) -> None:
        padding[0] = padding_of(args, kwargs)

    with ExitStack() as stack, only_run(model):
        for watcher in watchers.values():
            stack.enter_context(watcher.watching(padding))
        handle = model.register_forward_pre_hook(begin, with_kwargs=True, prepend=True)
        stack.callback(handle.remove)
        calibrate(model)
    return {name: watcher.seen for name, watcher in watchers.items()}


class _Watcher:
    """Looks at one mixture whenever it runs."""

    def __init__(self, model: nn.Module, mixture: Mixture) -> None:
        self.seen = Statistics(mixture.experts)
        self._mixture = mixture
        # Some mixtures are no module that is called, but one whose methods are.
        steps = mixture.name.split(".") if mixture.name else []
        paths = (".".join(steps[:count]) for count in range(len(steps), -1, -1))
        self._around = [model.get_submodule(path) for path in paths]
        named = dict((*model.named_parameters(), *model.named_buffers()))
        self._slices = [(named[name], axis) for name, axis in mixture.tensors]
        self._lists = [list(model.get_submodule(name).children()) for name in mixture.lists]
        owners = {name.rpartition(".")[0] for name, _ in mixture.tensors}
        alone = len(owners) == 1 and not mixture.lists
        self._owner = model.get_submodule(owners.pop()) if alone else None
        self._told: bool | None = None
        self._busy = self._done = False

    @contextmanager
    def watching(self, padding: list[Tensor | None]) -> Iterator[None]:
        """Look whenever the mixture runs, until the block ends."""
        self._padding = padding
        handles = []
        for module in self._around:
            handles.append(module.register_forward_pre_hook(self._before, prepend=True))
            handles.append(module.register_forward_hook(self._after, with_kwargs=True))
        if self._owner is not None:
            handles.append(self._owner.register_forward_hook(self._dealt, with_kwargs=True))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _dealt(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        """A module was told which experts each token goes to, and with what weights."""
        found = None if self._busy or self._told is False else _told(self._mixture, args, kwargs)
        if found is None or not isinstance(output, Tensor):
            return
        chosen, weights = found
        rows = chosen.shape[0]
        self._busy = True
        try:
            with torch.no_grad():
                ones = torch.ones_like(weights[:, :1])
                alone = [
                    module(*_instead(args, one), **_instead(kwargs, one))
                    for at in range(chosen.shape[1])
                    if (one := {id(chosen): chosen[:, at : at + 1], id(weights): ones})
                ]
                if self._told is None:
                    self._told = _is_sum(alone, weights, output)
                if not self._told:
                    return
        finally:
            self._busy = False
        counted = self._counted(rows)
        for at, made in enumerate(alone):
            norms = made.reshape(rows, -1).double().norm(dim=1).cpu() * counted
            place, weight = chosen[:, at].cpu(), weights[:, at].double().abs().cpu()
            self.seen.routed.index_add_(0, place, counted)
            self.seen.added.index_add_(0, place, norms * weight)
            if self.seen.norms is not None:
                self.seen.norms.index_add_(0, place, norms)
        self.seen.tokens += int(counted.sum())
        self._done = True

    def _before(self, module: nn.Module, args: Any) -> None:
        """The mixture begins to run, or something around it does."""
        if not self._busy:
            self._done = False

    def _after(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        """The mixture has run; look at it expert by expert where that is not done yet."""
        if self._busy or self._done:
            return
        self._busy = self._done = True
        try:
            with torch.no_grad(), _norms_of(self._lists) as returned:
                whole = _rows(module(*args, **kwargs))
            moved = []
            for expert in range(self._mixture.experts):
                with torch.no_grad(), self._silent(expert):
                    moved.append((whole - _rows(module(*args, **kwargs))).norm(dim=1))
        finally:
            self._busy = False
        added = torch.stack(moved).cpu() * self._counted(len(whole))
        routed = (added > 0).double()
        self.seen.tokens += int(self._counted(len(whole)).sum())
        self.seen.routed += routed.sum(1)
        self.seen.added += added.sum(1)
        if len(self._lists) != 1:
            self.seen.norms = None
        if self.seen.norms is not None:
            for expert, norms in returned.items():
                all_of_them = len(norms) == len(whole)
                self.seen.norms[expert] += (norms * routed[expert] if all_of_them else norms).sum()

    def _counted(self, rows: int) -> Tensor:
        """1 for each token that counts, and 0 for padding."""
        padding = self._padding[0]
        if padding is None or padding.numel() != rows:
            return torch.ones(rows, dtype=torch.float64, device="cpu")
        return padding.reshape(-1).double().cpu()

    @contextmanager
    def _silent(self, expert: int) -> Iterator[None]:
        """Let an expert return nothing but zeros."""
        kept = []
        handles = [modules[expert].register_forward_hook(_zeros) for modules in self._lists]
        for tensor, axis in self._slices:
            part = tensor.data.select(axis, expert)
            kept.append((part, part.clone()))
            part.zero_()
        try:
            yield
        finally:
            for part, numbers in kept:
                part.copy_(numbers)
            for handle in handles:
                handle.remove()


def _told(mixture: Mixture, args: Any, kwargs: Any) -> tuple[Tensor, Tensor] | None:
    """Which experts each token goes to, `(tokens, choices)`, and their weights."""
    tensors = [each for each in (*args, *kwargs.values()) if isinstance(each, Tensor)]
    for chosen in tensors:
        if chosen.ndim != 2 or chosen.is_floating_point() or chosen.dtype == torch.bool:
            continue
        if not chosen.numel() or not 0 <= int(chosen.min()) <= int(chosen.max()) < mixture.experts:
            continue
        for weights in tensors:
            if weights.shape == chosen.shape and weights.is_floating_point():
                return chosen, weights
    return None


def _instead(given: Any, news: Mapping[int, Tensor]) -> Any:
    if isinstance(given, dict):
        return {name: news.get(id(each), each) for name, each in given.items()}
    return tuple(news.get(id(each), each) for each in given)


def _is_sum(alone: list[Any], weights: Tensor, output: Tensor) -> bool:
    """Whether a module weighs and adds up what it returns for single choices."""
    if not all(isinstance(made, Tensor) and made.shape == output.shape for made in alone):
        return False
    rows = len(weights)
    together = sum(
        made.reshape(rows, -1) * weights[:, at : at + 1].to(made.dtype)
        for at, made in enumerate(alone)
    )
    assert isinstance(together, Tensor)
    whole = output.reshape(rows, -1)
    gap = (together - whole).abs().max().item()
    scale = max(whole.abs().max().item(), 1e-12)
    half = output.dtype.itemsize < 4
    return gap <= scale * (20 * _SAME if half else _SAME)


def _rows(output: Any) -> Tensor:
    """What a mixture returns, a row for each token."""
    if not isinstance(output, Tensor):
        output = next(each for each in output if isinstance(each, Tensor))
    rows: Tensor = output.detach().reshape(-1, output.shape[-1]).double()
    return rows


def _zeros(module: nn.Module, args: Any, output: Any) -> Any:
    if isinstance(output, Tensor):
        return torch.zeros_like(output)
    return type(output)(
        torch.zeros_like(each) if isinstance(each, Tensor) else each for each in output
    )


@contextmanager
def _norms_of(lists: list[list[nn.Module]]) -> Iterator[dict[int, Tensor]]:
    """The norms of what the modules of a list return, a number for each token that they get."""
    norms: dict[int, Tensor] = {}

    def listener(expert: int) -> Any:
        def listen(module: nn.Module, args: Any, output: Any) -> None:
            found = _rows(output).norm(dim=1).cpu()
            norms[expert] = torch.cat([norms[expert], found]) if expert in norms else found

        return listen

    handles = [
        module.register_forward_hook(listener(expert))
        for modules in lists[:1]
        for expert, module in enumerate(modules)
    ]
    try:
        yield norms
    finally:
        for handle in handles:
            handle.remove()
