"""Going through a model block by block, to prune or to reconstruct each on what reaches it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from prune_core.progress import Task
from prune_toolkit.calibration.calibrate import Calibrate, first_call
from prune_toolkit.calibration.replay import Replay
from prune_toolkit.calibration.steps import Step, as_example, find_steps
from prune_toolkit.calibration.store import Keep
from prune_toolkit.calibration.watch import TokenMask
from prune_toolkit.running.restore import only_run

if TYPE_CHECKING:
    from prune_core.pruning.pruner import Pruner

__all__ = ["Block", "Walk", "example_of"]


def example_of(model: nn.Module, calibrate: Calibrate) -> Any:
    """Return what a calibration calls the model with first, as example inputs."""
    with only_run(model):
        return as_example(model, *first_call(model, calibrate))


class Block:
    """Layers that are looked at together, and a way to let their inputs pass.

    Attributes:
        place: Which step of the model they are in.
        layers: Their names.
        replayed: Whether it was done in an earlier start, and only takes over what came of it.
    """

    def __init__(
        self, place: int, layers: tuple[str, ...], run: Callable[[Callable[..., None]], None]
    ) -> None:
        self.place, self.layers, self._run = place, layers, run
        self.ran = self.replayed = False

    def run(self, begin: Callable[[Tensor | None], None]) -> None:
        """Run them on every batch, and tell `begin` before each which of its tokens count."""
        self._run(begin)
        self.ran = True


class Walk:
    """A way through the blocks of a model, with the inputs that they get on a calibration set.

    Args:
        pruner: Whose model it is.
        layers: The layers that may be changed, by name, without their wrappers.
        calibrate: Runs the model on some batches.
        batches: After how many to stop, or None.
        keep: What keeps activations.
        tokens: Says which tokens of a call are no padding.
        dense: Whether blocks are run on what the model gives as it is before the walk, or on what
            the blocks before them give when they have been changed.
        fine: Whether layers of one block are looked at one after the other as well.
        title: What the progress is called.
        example: What the calibration calls the model with, if that is known.
    """

    def __init__(
        self,
        pruner: Pruner,
        layers: Mapping[str, nn.Module],
        calibrate: Calibrate,
        batches: int | None = None,
        *,
        keep: Keep,
        tokens: TokenMask,
        dense: bool,
        fine: bool = False,
        title: str = "",
        example: Any = None,
    ) -> None:
        self.layers, self.dense, self.fine = dict(layers), dense, fine
        self.title = title or type(pruner).__name__
        model = pruner.bound_model
        example = example_of(model, calibrate) if example is None else example
        with pruner.plain() as plain:
            steps = find_steps(plain, self.layers, example)
        self.replay = Replay(model, steps, keep, tokens, dense=dense)
        self.replay.capture(calibrate, batches)

    def __len__(self) -> int:
        return len(self.replay)

    @property
    def total(self) -> int:
        """How many blocks it yields."""
        return sum(len(self._groups(step)) for step in self.replay.steps)

    def _groups(self, step: Step) -> tuple[tuple[str, ...], ...]:
        if not step.layers:
            return ()
        return step.groups if self.fine else (step.layers,)

    def __iter__(self) -> Iterator[Block]:
        """Yield block after block; each may be changed before the next is asked for."""
        replay = self.replay
        with Task(self.title, self.total, "block") as task:
            for place, step in enumerate(replay.steps):
                groups, kept = self._groups(step), False
                for layers in groups:
                    until = self.layers[layers[-1]] if len(groups) > 1 else None
                    block = self._block(place, layers, until)
                    yield block
                    kept = self.dense and block.ran
                    more = f" and {len(layers) - 1} more" if layers[1:] else ""
                    task.advance(f"{layers[0]}{more}", replayed=block.replayed)
                replay.finish(place, keep=not kept)

    def _block(self, place: int, layers: tuple[str, ...], until: nn.Module | None) -> Block:
        self.replay.reach(place)

        def run(begin: Callable[[Tensor | None], None]) -> None:
            self.replay.run(place, begin, until, keep=self.dense)

        return Block(place, layers, run)
