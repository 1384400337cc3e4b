"""One budget for depth and width: some blocks go whole, and channels of the others go besides."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import isfinite, nan
from typing import Any, ClassVar

import torch
from torch import nn

from prune_blocks.layers.amount import BUDGETS, Amount
from prune_blocks.layers.loss import distance_from, loss_of, returns_loss
from prune_blocks.layers.made_smaller import MadeSmaller, Trial
from prune_blocks.layers.pruner import BlockPruner
from prune_core.callables import UserFunction
from prune_core.compressed import Compressed, model_of
from prune_core.errors import ConfigError, PruneError, PruneWarning, shown
from prune_core.masking import check_model, unwrap, wrappers_in
from prune_core.options import ChecksOptions, taken_by
from prune_core.progress import Task
from prune_core.registry import entries, get_pruner
from prune_speedup.algorithm import running
from prune_speedup.budget.target import check_target
from prune_speedup.budget.whole import Whole
from prune_speedup.torch import Block, SpeedupReport, prune, remove_blocks
from prune_speedup.torch.speedup import make_small, tell
from prune_speedup.torch.tensors import Snapshot
from prune_toolkit.running.restore import evaluating

__all__ = ["DepthAndWidthPruner"]

MOST_TRIALS = 8
"""How many numbers of blocks are tried unless the user names them."""


class DepthAndWidthPruner(metaclass=ChecksOptions):
    """Meets one budget by taking out blocks and channels, as many of each as costs least.

    For several numbers of blocks, from none to as many as meet the budget alone, the blocks that a
    criterion ranks lowest are taken out of a copy, a pruner of channels takes the rest of the
    budget from what is left, and the loss of the result is measured. What lost least is then done
    to the model itself, and verified.

    Args:
        model: The model; it gets fewer and narrower layers in place.
        example_inputs: An input of the model.
        target: What may be left of the whole model, such as `{"flops": 0.5}`: of `parameters`,
            `flops`, measured `latency` or a registered cost.
        depth: The name of the criterion for blocks, such as `"leave_one_out"`.
        width: The name of the pruner for channels; unless given, what `prune_core.prune` takes.
        evaluate: A function of the model that returns its loss, a number that is smaller where the
            model is better. It gets a copy of its own, which it may train first, unless
            `leave_one_out` ranks the blocks by it as well. Unless given, the loss that the model
            returns on the data; of a model that returns none, the distance of its outputs from
            what they were.
        calibrate: A function of the model that runs it on some batches.
        data: Inputs of the model instead, each in the form of `example_inputs`.
        counts: The numbers of blocks to try; unless given up to eight, evenly spread.
        blocks: Which blocks may go, as the `targets` of a criterion for blocks.
        targets: Which modules may lose channels, as in `prune_core.prune`.
        exclude: Names of modules and blocks that stay as they are, or class names of modules.
        round_to: Leave a multiple of this many channels.
        uniform: Leave layers that are alike equally wide.
        constants: What to do with a masked channel that is not zero, as in `prune_core.prune`.
        depth_options: Further arguments of the criterion for blocks, such as `{"greedy": True}`.
        width_options: Further arguments of the pruner of channels, such as `{"mode": "global"}`.

    Attributes:
        removes: What it removes.
        report: What was tried, and what was done, after `compress()`.
    """

    granularity: ClassVar[str] = "blocks"
    removes: ClassVar[str] = "blocks and channels"
    modes: ClassVar[tuple[str, ...]] = ()
    needs_data: ClassVar[bool] = True
    needs_labels: ClassVar[bool] = False

    def __init__(
        self,
        model: nn.Module,
        example_inputs: Any,
        *,
        target: Mapping[str, float] | None = None,
        depth: str = "block_influence",
        width: str | None = None,
        evaluate: Callable[..., Any] | None = None,
        calibrate: Callable[..., Any] | None = None,
        data: Iterable[Any] | None = None,
        counts: Sequence[int] | None = None,
        blocks: str | Sequence[str] = "default",
        targets: str | Sequence[str] = ("default",),
        exclude: str | Sequence[str] = (),
        round_to: int = 1,
        uniform: bool = False,
        constants: str = "exact",
        depth_options: Mapping[str, Any] | None = None,
        width_options: Mapping[str, Any] | None = None,
    ) -> None:
        self.model: nn.Module = model_of(model)
        check_model(self.model, compiled=False)
        if wrapped := wrappers_in(self.model):
            raise ConfigError(
                f"{next(iter(wrapped))!r} is still wrapped by a pruner: take the wrappers off "
                "first, with prune_core.unwrap(model)."
            )
        if example_inputs is None:
            raise ConfigError(
                "DepthAndWidthPruner needs example_inputs, an input of the model, to see what can "
                "go and what it costs."
            )
        if target is None:
            raise ConfigError(
                "DepthAndWidthPruner divides a budget between blocks and channels: say target=, "
                "such as target={'flops': 0.5}, what may be left of the whole model."
            )
        check_target(target)
        self._inputs, self._target = example_inputs, dict(target)
        if data is not None:
            calibrate = running(data, calibrate)
        if calibrate is None:
            raise ConfigError(
                "DepthAndWidthPruner ranks blocks by what they compute, and was given no data: say "
                "data=[...], some inputs of the model, or calibrate=, a function that runs the "
                "model on some."
            )
        self._run = UserFunction(calibrate, "calibrate")
        self._targets = [targets] if isinstance(targets, str) else list(targets)
        self._exclude = [exclude] if isinstance(exclude, str) else list(exclude)
        self._evaluate = None if evaluate is None else UserFunction(evaluate, "evaluate")
        self._criterion = self._criterion_of(depth, blocks, dict(depth_options or {}))
        self._width: dict[str, Any] = {
            **_checked_options(width_options),
            **_of_channels(width, calibrate),
            "round_to": round_to,
            "uniform": uniform,
            "constants": constants,
        }
        self._counts = self._checked_counts(counts)
        self.report: MadeSmaller | None = None

    @classmethod
    def prune(
        cls,
        model: nn.Module,
        *,
        example_inputs: Any = None,
        sparsity: float | None = None,
        **options: Any,
    ) -> Compressed[nn.Module, MadeSmaller]:
        """Do what `prune_core.prune` asks for, and return the smaller model and a report."""
        if sparsity is not None:
            raise ConfigError(
                f"sparsity is {shown(sparsity)}, and a share of what is not said: depth_and_width "
                "divides a budget between blocks and channels. Say target={'flops': 0.5}."
            )
        return cls(model, example_inputs, **options).compress()

    def compress(self) -> Compressed[nn.Module, MadeSmaller]:
        """Try, and do to the model what lost least.

        Raises:
            ConfigError: No number of blocks meets the budget.
            SpeedupError: The model cannot do without them; it is left as it was.
        """
        whole = Whole(self.model, self._inputs, self._target)
        with evaluating(self.model), torch.no_grad():
            loss = self._loss()
        trials: list[Trial] = []
        with Task("depth_and_width", len(self._counts), "trial", announce=True) as task:
            for count in self._counts:
                trials.append(self._tried(count, whole, loss))
                task.advance()
        able = [trial for trial in trials if not trial.reason]
        if not able:
            tried = (f"with {len(each.blocks)} blocks gone, {each.reason}" for each in trials)
            raise ConfigError(f"target is {self._target}, which no way meets: {'; '.join(tried)}")
        best = min(able, key=lambda trial: trial.loss)
        with _as_it_was_on_failure(self.model):
            self.report = self._smaller(self.model, best.blocks, whole, verify=True)
        self.report.trials = trials
        self.report.left = best.left
        return Compressed(self.model, self.report)

    # --- one trial ------------------------------------------------------------------------

    def _tried(self, count: int, whole: Whole, loss: Callable[[nn.Module], float]) -> Trial:
        names: list[str] = []
        try:
            names = [each.name for each in self._lowest(count)]
            small = copy.deepcopy(self.model)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", PruneWarning)  # what is done in the end will warn
                self._smaller(small, names, whole, verify=False)
            left = whole.left(small)
        except PruneError as error:
            return Trial(names, {}, nan, str(error))
        found = loss(small)
        return Trial(names, left, found, "" if isfinite(found) else f"its loss is {found}")

    def _smaller(
        self, model: nn.Module, names: Sequence[str], whole: Whole, *, verify: bool
    ) -> MadeSmaller:
        """Take blocks out of a model, and channels as far as the budget is not met yet."""
        report = MadeSmaller(model)
        modules = dict(model.named_modules())
        if names:
            report.depth = remove_blocks(model, self._inputs, names, verify=verify)
        left = whole.left(model)
        # Of what is left now; rounding must not let what just meets the budget miss it.
        more = {k: ratio / left[k] for k, ratio in self._target.items() if left[k] > ratio}
        if not (names or more):
            raise PruneError(f"the whole model meets {self._target} as it is")
        if more:
            width = {**self._width, **self._selected(model, modules)}
            _, masks = prune(model, target=more, example_inputs=self._inputs, **width)
            report.width = self._shrunk(model, masks, verify=verify)
        return report

    def _selected(
        self, model: nn.Module, before: Mapping[str, nn.Module]
    ) -> dict[str, Sequence[str]]:
        """What may lose channels and what may not, by the names that modules have now."""
        now = {id(module): name for name, module in model.named_modules()}

        def renamed(names: Sequence[str]) -> list[str]:
            found = [now.get(id(before[each]), "") if each in before else each for each in names]
            return [*filter(None, found)]

        targets = renamed(self._targets)
        if not targets:
            raise ConfigError(f"none of targets={self._targets} is left to be made narrower")
        return {"targets": targets, "exclude": renamed(self._exclude)}

    def _shrunk(self, model: nn.Module, masks: Any, *, verify: bool) -> SpeedupReport:
        unwrap(model)
        constants = self._width["constants"]
        report = make_small(model, self._inputs, masks, constants=constants, verify=verify)
        if verify:
            tell(report)
        return report

    def _loss(self) -> Callable[[nn.Module], float]:
        if self._evaluate is not None:
            return lambda model: loss_of(model, self._evaluate, None)
        if not returns_loss(self.model, self._run):
            return distance_from(self.model, self._run)

        def loss(model: nn.Module) -> float:
            with evaluating(model), torch.no_grad():
                return loss_of(model, None, self._run)

        return loss

    # --- which blocks, and how many -------------------------------------------------------

    def _lowest(self, count: int) -> list[Block]:
        """The blocks that go first."""
        if not count:
            return []
        self._criterion.amount = Amount(count, {}, self._criterion.found)
        return self._criterion.choose()

    def _checked_counts(self, counts: Sequence[int] | None) -> list[int]:
        if counts is None:
            return _spread(self._most())
        wanted = [*counts] if isinstance(counts, Iterable) else []
        if not wanted or any(type(each) is not int or each < 0 for each in wanted):
            raise ConfigError(
                f"counts is {shown(counts)}; it must be some numbers of blocks, such as range(5)."
            )
        if (most := max(wanted)) > (there := len(self._criterion.candidates)):
            raise ConfigError(
                f"counts has {most}, and the model has {there} blocks that may go. Leave out what "
                f"is more than {there}, or leave out counts= to try as many as meet the target."
            )
        return sorted({*wanted})

    def _most(self) -> int:
        """The least number of blocks that meets the budget without channels, or all that may go."""
        counted = {kind: ratio for kind, ratio in self._target.items() if kind in BUDGETS}
        # Of what has to be measured, the work is the best guess.
        counted = counted or {"flops": min(self._target.values())}
        budget = Amount(None, counted, self._criterion.found)
        for count in range(1, len(self._criterion.candidates) + 1):
            try:
                gone = self._lowest(count)
            except ConfigError:
                return count - 1
            if budget.met_by(gone):
                return count
        return len(self._criterion.candidates)

    def _criterion_of(
        self, name: str, targets: str | Sequence[str], options: dict[str, Any]
    ) -> BlockPruner:
        known = [e.name for e in entries("pruner") if e.reference.prunes == "blocks"]
        kind = get_pruner(name, framework="torch") if isinstance(name, str) else None
        if not (isinstance(kind, type) and issubclass(kind, BlockPruner)):
            raise ConfigError(
                f"depth is {shown(name)}; it must be the name of a criterion for blocks: "
                f"{', '.join(sorted(known))}."
            )
        asks = kind.needs_labels and self._evaluate is not None
        options |= {"evaluate": self._evaluate} if asks else {"calibrate": self._run}
        there = {module for module, _ in self.model.named_modules()}
        stay = [each for each in self._exclude if each in there]
        return kind(self.model, self._inputs, count=1, targets=targets, exclude=stay, **options)


def _of_channels(name: str | None, calibrate: Callable[..., Any]) -> dict[str, Any]:
    """What `prune` is told of the pruner of channels, with the data if it looks at any."""
    if name is None:
        return {"algorithm": None, "calibrate": calibrate}
    kind: Any = get_pruner(name, framework="torch") if isinstance(name, str) else None
    if getattr(kind, "granularity", "") != "channels":
        raise ConfigError(
            f"width is {shown(name)}; it must be the name of a pruner of output channels, such as "
            "'l1' or 'channel_obs'."
        )
    looks = {"calibrate": calibrate} if "calibrate" in taken_by(kind) else {}
    return {"algorithm": name, **looks}


def _checked_options(options: Mapping[str, Any] | None) -> dict[str, Any]:
    mine = {"target", "sparsity", "example_inputs", "data", "calibrate", "algorithm"}
    mine |= {"targets", "exclude", "round_to", "uniform", "constants"}
    if twice := sorted(mine & {*(options or {})}):
        raise ConfigError(
            f"width_options has {twice[0]!r}, which depth_and_width says itself: give it as an "
            "argument of its own, or leave it out."
        )
    return dict(options or {})


def _spread(most: int) -> list[int]:
    """Up to eight numbers from 0 to the most, evenly."""
    if most < MOST_TRIALS:
        return list(range(most + 1))
    return sorted({round(at * most / (MOST_TRIALS - 1)) for at in range(MOST_TRIALS)})


@contextmanager
def _as_it_was_on_failure(model: nn.Module) -> Iterator[None]:
    """Put modules, tensors and their numbers back if anything goes wrong."""
    before = Snapshot(model)
    numbers = [(each, each.detach().clone()) for each in (*model.parameters(), *model.buffers())]
    try:
        yield
    except BaseException:
        before.restore()
        for tensor, value in numbers:
            tensor.data.copy_(value)
        raise
