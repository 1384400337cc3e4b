"""What the pruners of blocks share: which blocks may go, how many, and taking them out."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import isfinite
from typing import Any, ClassVar

from torch import nn

from prune_blocks.layers.amount import Amount, amount_of
from prune_core.callables import UserFunction
from prune_core.compressed import Compressed, model_of
from prune_core.errors import ConfigError, PruneError, nearest, shown
from prune_core.masking import bare
from prune_core.options import ChecksOptions
from prune_speedup.algorithm import running
from prune_speedup.torch import Block, Blocks, RemovalReport, blocks, remove_blocks
from prune_toolkit.running.restore import only_run

__all__ = ["BlockPruner"]

KINDS = ("block", "attention", "mlp", "convolution")


class BlockPruner(metaclass=ChecksOptions):
    """Takes those blocks out of a model that a criterion ranks lowest.

    A block is not masked but removed, at once, and the result is held to the model that skips it.
    So there are no masks: `compress()` returns the smaller model and a report.

    Args:
        model: The model; it gets fewer layers in place.
        example_inputs: An input of the model.
        count: How many blocks go.
        sparsity: Which share of them goes instead, rounded down.
        target: What may be left of the model instead, such as `{"parameters": 0.7}` or
            `{"flops": 0.7}`; as few blocks go as meet it.
        calibrate: A function of the model that runs it on some batches.
        data: Inputs of the model instead, each in the form of `example_inputs`.
        targets: `"default"` for whole blocks, or for residual branches in a model that has no
            blocks; or kinds, such as `"attention"`, or names, as `prune_core.blocks` lists both.
        exclude: Names of blocks, or of modules that hold some, which stay.
        verify: Whether the smaller model is compared.
        verify_inputs: More inputs to compare on.

    Attributes:
        removes: What it removes.
        scores: The score of each block that was looked at, after `compress()`.
        report: What was removed, after `compress()`.
    """

    granularity: ClassVar[str] = "blocks"
    removes: ClassVar[str] = "blocks"
    modes: ClassVar[tuple[str, ...]] = ()
    needs_data: ClassVar[bool] = True
    needs_labels: ClassVar[bool] = False

    def __init__(
        self,
        model: nn.Module,
        example_inputs: Any,
        *,
        count: int | None = None,
        sparsity: float | None = None,
        target: Mapping[str, float] | None = None,
        calibrate: Callable[..., Any] | None = None,
        data: Iterable[Any] | None = None,
        targets: str | Sequence[str] = "default",
        exclude: str | Sequence[str] = (),
        verify: bool = True,
        verify_inputs: Sequence[Any] = (),
    ) -> None:
        self.model: nn.Module = model_of(model)
        if example_inputs is None:
            raise ConfigError(
                f"{type(self).__name__} needs example_inputs, an input of the model, to see which "
                "blocks it has and to compare what is left."
            )
        self._inputs = example_inputs
        if data is not None:
            calibrate = running(data, calibrate)
        self.calibrate = self._checked(calibrate)
        self.found: Blocks = blocks(self.model, example_inputs)
        self.candidates = self._candidates(targets, exclude)
        self.amount: Amount = amount_of(sparsity, count, target, len(self.candidates), self.found)
        self._verify: dict[str, Any] = {"verify": verify, "verify_inputs": verify_inputs}
        self.scores: dict[str, float] = {}
        self.report: RemovalReport | None = None

    @classmethod
    def prune(
        cls,
        model: nn.Module,
        *,
        example_inputs: Any = None,
        round_to: int = 1,
        targets: str | Sequence[str] = "default",
        **options: Any,
    ) -> Compressed[nn.Module, RemovalReport]:
        """Do what `prune_core.prune` asks for, and return the smaller model and a report.

        Args:
            model: The model, changed in place.
            example_inputs: An input of the model.
            round_to: Must be 1: whole blocks go.
            targets: The names of blocks that may go.
            **options: Arguments of the constructor.
        """
        if round_to != 1:
            raise ConfigError(f"round_to is {round_to!r}; blocks have no channels to round.")
        if targets == ("default",):
            targets = "default"
        return cls(model, example_inputs, targets=targets, **options).compress()

    @abstractmethod
    def choose(self) -> list[Block]:
        """Fill `scores`, and return the blocks that go."""

    def compress(self) -> Compressed[nn.Module, RemovalReport]:
        """Take out what the criterion ranks lowest.

        Raises:
            PruneError: The calibration gave nothing to rank by.
            SpeedupError: The model cannot do without them; it is left as it was.
        """
        chosen = self.choose()
        self.report = remove_blocks(self.model, self._inputs, chosen, **self._verify)
        return Compressed(self.model, self.report)

    def run_calibration(self, model: nn.Module) -> None:
        """Let the user's code run the model, and put back what it may have changed.

        Args:
            model: The model that the user's function gets.
        """
        assert self.calibrate is not None
        with only_run(model):
            self.calibrate(model)

    def lowest(self) -> list[Block]:
        """Return as few of the blocks with the lowest scores as are to go."""
        for name, score in self.scores.items():
            if not isfinite(score):
                raise PruneError(
                    f"The score of {name!r} is {score}: the model computes numbers that are none "
                    "on the calibration data."
                )
        order = sorted(self.candidates, key=lambda each: self.scores[each.name])
        gone: list[Block] = []
        for block in order:
            if self.amount.met_by(gone):
                return gone
            if self.leaves_one([*gone, block]):
                gone.append(block)
        if not self.amount.met_by(gone):
            raise self.amount.refuse(gone, len(order))
        return gone

    def leaves_one(self, gone: Sequence[Block]) -> bool:
        """Whether something is left of the blocks, and of each list of them, without some.

        Args:
            gone: The blocks that would go.
        """
        names = {each.name for each in gone if each.kind == "block"}
        if names and all(each.name in names for each in self.found if each.kind == "block"):
            return False
        parents = Counter(name.rpartition(".")[0] for name in names)
        rows = ((self.model.get_submodule(parent), many) for parent, many in parents.items())
        return not any(isinstance(row, nn.ModuleList) and len(row) == many for row, many in rows)

    def _checked(self, calibrate: Callable[..., Any] | None) -> UserFunction | None:
        if calibrate is None:
            raise ConfigError(
                f"{type(self).__name__} looks at what the blocks compute, and was given no data: "
                "say data=[...], some inputs of the model, or calibrate=, a function that runs the "
                "model on some."
            )
        return UserFunction(calibrate, "calibrate")

    def _candidates(
        self, targets: str | Sequence[str], exclude: str | Sequence[str]
    ) -> list[Block]:
        wanted, excluded = _names("targets", targets), _names("exclude", exclude)
        with bare(self.model) as plain:
            modules = [name for name, _ in plain.named_modules() if name]
        for name in excluded:
            if name not in modules and name not in self.found.names:
                raise ConfigError(
                    f"exclude has {name!r}, and the model has no such block or module."
                    f"{nearest(name, self.found.names)}"
                )
        chosen: list[Block] = []
        for name in wanted:
            if name == "default":
                chosen += self.found.of_kind("block") or self.found.removable
            elif name in KINDS:
                chosen += self.found.of_kind(name)
            elif name in self.found.names:
                chosen.append(self.found[name])
            else:
                raise ConfigError(
                    f"targets has {name!r}, which is neither a kind ({', '.join(KINDS)}) nor a "
                    f"block of the model.{nearest(name, self.found.names)}"
                )
        chosen = list({each.name: each for each in chosen}.values())
        for each in chosen:
            if each.reason:
                raise ConfigError(f"{each.name!r} cannot be taken out: {each.reason}.")
        left = [each for each in chosen if not any(_within(each, name) for name in excluded)]
        if not left:
            stuck = next((f"; {b.name!r} stays: {b.reason}" for b in self.found if b.reason), "")
            raise ConfigError(
                f"Nothing can be taken out: of the {len(self.found)} blocks and branches of this "
                f"{type(self.model).__name__} none is of {wanted} and not excluded{stuck}. "
                "print(prune_core.blocks(model, example_inputs)) shows what there is."
            )
        return left


def _names(argument: str, value: str | Sequence[str]) -> list[str]:
    names = [value] if isinstance(value, str) else list(value)
    if not all(isinstance(name, str) for name in names) or (argument == "targets" and not names):
        raise ConfigError(f"{argument} is {shown(value)}; it must be a name or a list of names.")
    return names


def _within(block: Block, name: str) -> bool:
    return block.name == name or any(m == name or m.startswith(f"{name}.") for m in block.modules)
