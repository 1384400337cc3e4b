"""What can be taken out of a model as a whole, and what cannot, and why.

Nothing here knows a model: blocks are found where residual branches are added, and where modules
that hold such additions stand in a row.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, overload

from torch import nn

from prune_core.compressed import model_of
from prune_core.errors import ConfigError, nearest
from prune_core.masking import bare, check_model
from prune_speedup.engine.graph import Graph
from prune_speedup.gc_pause import collecting_later
from prune_speedup.torch.analysis import analysis_of
from prune_speedup.torch.cost import flops_of_calls
from prune_speedup.torch.depth.calls import Seen, watch_modules
from prune_speedup.torch.depth.flow import Addition, Branch, Flow

__all__ = ["Block", "Blocks", "blocks", "inside", "read_blocks"]

_MOST = 0.75
"""From what share of a branch's parameters on one module gives the branch its name."""


@dataclass(frozen=True, slots=True)
class Block:
    """Something that can be taken out as a whole, or could be if it were not for a reason.

    Attributes:
        name: The name of its module, or `first..last` where it has no module of its own.
        kind: `"block"` for a module whose output can be replaced by its input; `"attention"`,
            `"convolution"` or `"mlp"` for a residual branch, by what it computes with.
        parameters: How many values its parameters have that nobody else uses.
        flops: What it takes to run, of the floating-point operations of the example.
        reason: Why it cannot be taken out; empty if it can.
        modules: The modules that go, in the order in which they run.
        additions: Where a branch is added.
    """

    name: str
    kind: str
    parameters: int
    flops: int
    reason: str = ""
    modules: tuple[str, ...] = ()
    additions: tuple[Addition, ...] = field(default=(), repr=False)


class Blocks(Sequence[Block]):
    """The blocks and branches of a model, in the order in which they run.

    `print(blocks)` shows them as a table; `blocks["layers.3"]` is the one of a name.
    """

    def __init__(
        self, found: Sequence[Block], parameters: int, flops: int, seen: dict[str, Seen]
    ) -> None:
        """Keep them, what the whole model has, and how each of its modules was used."""
        self._found, self.seen = list(found), seen
        self.parameters, self.flops = parameters, flops

    @overload
    def __getitem__(self, at: int | str) -> Block: ...
    @overload
    def __getitem__(self, at: slice) -> list[Block]: ...

    def __getitem__(self, at: int | str | slice) -> Block | list[Block]:
        """Return one by its position or its name."""
        if not isinstance(at, str):
            return self._found[at]
        for each in self._found:
            if each.name == at:
                return each
        raise ConfigError(
            f"{at!r} is no block or branch of this model.{nearest(at, self.names)} "
            "prune_core.blocks(model, example_inputs) lists them."
        )

    def __len__(self) -> int:
        return len(self._found)

    @property
    def names(self) -> list[str]:
        """Their names."""
        return [each.name for each in self._found]

    @property
    def removable(self) -> list[Block]:
        """Those that can be taken out."""
        return [each for each in self._found if not each.reason]

    def of_kind(self, *kinds: str) -> list[Block]:
        """Those of some kinds that can be taken out."""
        return [each for each in self.removable if each.kind in kinds]

    def __str__(self) -> str:
        rows = [("name", "kind", "parameters", "FLOPs", "")]
        for each in self._found:
            share = f"{each.flops / self.flops:.1%}" if self.flops else "-"
            reason = f"stays: {each.reason}" if each.reason else ""
            rows.append((each.name, each.kind, f"{each.parameters:,}", share, reason))
        widths = [max(len(row[at]) for row in rows) for at in range(4)]
        return "\n".join(
            f"{name:{widths[0]}}  {kind:{widths[1]}}  {count:>{widths[2]}}  {share:>{widths[3]}}  "
            f"{reason}".rstrip()
            for name, kind, count, share, reason in rows
        )


def blocks(model: nn.Module, example_inputs: Any) -> Blocks:
    """List the residual branches and the whole blocks of a model, and which can be taken out.

    Args:
        model: Any module; it is run in eval mode, and left as it was.
        example_inputs: A tensor, a tuple of positional or a dict of keyword arguments.

    Raises:
        ConfigError: The model does not run on these inputs.

    Example:
        >>> import torch
        >>> class Layer(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.norm, self.mlp = nn.LayerNorm(8), nn.Linear(8, 8)
        ...
        ...     def forward(self, x):
        ...         return x + self.mlp(self.norm(x))
        >>> model = nn.Sequential(*(Layer() for _ in range(3)), nn.Linear(8, 2))
        >>> print(blocks(model, torch.zeros(1, 8)))
        name   kind   parameters  FLOPs
        0      block          88  30.8%
        0.mlp  mlp            88  30.8%
        1      block          88  30.8%
        1.mlp  mlp            88  30.8%
        2      block          88  30.8%
        2.mlp  mlp            88  30.8%
    """
    model = model_of(model)
    check_model(model, compiled=False)
    with bare(model) as plain:
        return read_blocks(plain, example_inputs)


@collecting_later()
def read_blocks(model: nn.Module, example_inputs: Any) -> Blocks:
    """Find the blocks and branches of a model."""
    graph = analysis_of(model, example_inputs).graph
    seen = watch_modules(model, example_inputs)
    finder = _Finder(model, graph, seen)
    parameters = sum(each.numel() for each in model.parameters())
    return Blocks(finder.found(), parameters, flops_of_calls(graph, range(graph.first)), seen)


def inside(name: str, outer: str) -> bool:
    """Whether a module is another one or in it."""
    return not outer or name == outer or name.startswith(f"{outer}.")


class _Finder:
    def __init__(self, model: nn.Module, graph: Graph, seen: dict[str, Seen]) -> None:
        self._graph, self._seen = graph, seen
        self._modules = dict(model.named_modules())
        flow = Flow(graph)
        self._branches, self._idle = [*flow.branches()], flow.idle
        self._calls: dict[str, set[int]] = {}
        for position, call in enumerate(graph.calls[: graph.first]):
            for module in _upwards(call.module):
                self._calls.setdefault(module, set()).add(position)
        self._owners: Counter[int] = Counter()
        for module in self._modules.values():
            for parameter in module._parameters.values():
                if parameter is not None:
                    self._owners[id(parameter)] += 1

    def found(self) -> list[Block]:
        """Blocks and branches, in the order in which they run."""
        found = [(self._order(name), 0, self._block(name)) for name in self._block_names()]
        taken = {block.name for _, _, block in found}
        for branch in self._branches:
            made = self._branch(branch)
            if made is not None and made.name not in taken:
                taken.add(made.name)
                first = min((self._order(name) for name in made.modules), default=branch.calls[0])
                found.append((first, 1, made))
        return [block for _, _, block in sorted(found, key=lambda each: each[:2])]

    def _order(self, name: str) -> int:
        return self._seen[name].order if name in self._seen else len(self._seen)

    def _block_names(self) -> list[str]:
        """The outermost modules that are blocks: they hold the addition of a whole branch."""
        adding = {b.addition.module for b in self._branches if self._whole(b)}
        holding = {outer for module in adding for outer in _upwards(module)} - {""}
        rows: dict[str, list[str]] = {}
        for name in holding:
            parent = name.rpartition(".")[0]
            if isinstance(self._modules.get(parent), nn.ModuleList | nn.Sequential):
                rows.setdefault(parent, []).append(name)
        candidates = adding - {""}
        stages: set[str] = set()
        for parent, names in rows.items():
            kinds = Counter(type(self._modules[name]) for name in names)
            candidates |= {n for n in names if len(names) > 1}
            if max(kinds.values()) > 1:
                # What holds a row of blocks is a stage, or the model.
                stages |= {*_upwards(parent)}
        candidates = {
            name
            for name in candidates - stages
            if not isinstance(self._modules[name], nn.ModuleList) and name in self._seen
        }
        return sorted(
            (n for n in candidates if candidates.isdisjoint({*_upwards(n)} - {n})),
            key=self._order,
        )

    def _whole(self, branch: Branch) -> bool:
        """Whether modules would go with a branch, or would if they did not run several times."""
        several = self._seen[branch.addition.module].runs > 1
        return bool(self._going(branch)) or (several and branch.weighted)

    def _block(self, name: str) -> Block:
        seen = self._seen[name]
        reason = self._why_not(name, seen)
        flops = flops_of_calls(self._graph, self._calls.get(name, ()))
        return Block(name, "block", self._own([name]), flops, reason, (name,))

    def _why_not(self, name: str, seen: Seen) -> str:
        if seen.runs > 1:
            return f"it runs {seen.runs} times"
        if not seen.form or seen.returned is None:
            return "it returns neither a tensor nor a tuple that begins with one"
        if seen.given is None:
            return "it is given no tensor"
        if not seen.keeps_shape:
            return f"it is given {_shape(seen.given[0])} and returns {_shape(seen.returned[0])}"
        if seen.read:
            return seen.read
        return ""

    def _going(self, branch: Branch) -> list[str]:
        """The outermost modules with parameters of which a branch is all that they do."""
        needless = {*branch.calls, *self._idle}
        whole = {
            module
            for module in {m for at in branch.calls for m in _upwards(self._graph.calls[at].module)}
            # A list of modules holds some that run, and does not run itself.
            if module in self._seen and module and self._calls[module] <= needless
        }
        outermost = [m for m in whole if whole.isdisjoint({*_upwards(m)} - {m})]
        return sorted(
            (m for m in outermost if any(True for _ in self._modules[m].parameters())),
            key=self._order,
        )

    def _branch(self, branch: Branch) -> Block | None:
        modules = self._going(branch)
        if not modules:
            return None
        calls = [self._graph.calls[at] for at in branch.calls]
        names = {call.name for call in calls}
        if any("softmax" in n or "attention" in n for n in names):
            kind = "attention"
        else:
            kind = "convolution" if any("conv" in n for n in names) else "mlp"
        reason = ""
        for name in modules:
            seen = self._seen[name]
            if seen.runs > 1:
                reason = reason or f"{name!r} runs {seen.runs} times"
            elif not seen.form or seen.given is None or seen.returned is None:
                reason = reason or f"{name!r} returns what nothing can stand in for"
            elif seen.read:
                reason = reason or seen.read
        flops = flops_of_calls(self._graph, branch.calls)
        name = self._named(modules)
        own = self._own(modules)
        return Block(name, kind, own, flops, reason, tuple(modules), (branch.addition,))

    def _named(self, modules: Sequence[str]) -> str:
        sizes = {name: self._own([name]) for name in modules}
        largest = max(modules, key=lambda name: sizes[name])
        if len(modules) == 1 or sizes[largest] > _MOST * sum(sizes.values()):
            return largest
        # Norms at the ends are not what a branch is known by.
        wide = [n for n in modules if any(p.ndim > 1 for p in self._modules[n].parameters())]
        first, last = (wide or modules)[0], (wide or modules)[-1]
        if first == last:
            return first
        parent = _common(first, last)
        return f"{first}..{last.removeprefix(f'{parent}.') if parent else last}"

    def _own(self, modules: Sequence[str]) -> int:
        """How many values the parameters of some modules have that are used nowhere else."""
        here: Counter[int] = Counter()
        sizes: dict[int, int] = {}
        for name in modules:
            for module in self._modules[name].modules():
                for parameter in module._parameters.values():
                    if parameter is not None:
                        here[id(parameter)] += 1
                        sizes[id(parameter)] = parameter.numel()
        return sum(sizes[key] for key, times in here.items() if times == self._owners[key])


def _upwards(name: str) -> Iterator[str]:
    """The module, what it is in, and so on up to the model."""
    while name:
        yield name
        name = name.rpartition(".")[0]
    yield ""


def _common(first: str, last: str) -> str:
    """The innermost module that two are in."""
    others = {*_upwards(last)}
    return next(name for name in _upwards(first.rpartition(".")[0]) if name in others)


def _shape(shape: Sequence[int]) -> str:
    return "×".join(map(str, shape)) or "a number"
