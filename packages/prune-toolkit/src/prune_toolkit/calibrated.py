"""What is gathered while the user's own code runs the model: a calibration, or a training."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from prune_core.callables import UserFunction
from prune_core.errors import ConfigError, PruneError
from prune_core.masking import PrunerModuleWrapper
from prune_core.masking.watcher import Watcher
from prune_core.progress import Task
from prune_toolkit.calibration.calibrate import Calibrate, Enough
from prune_toolkit.calibration.watch import padding_of
from prune_toolkit.data import DataCollector
from prune_toolkit.from_training import FROM_TRAINING
from prune_toolkit.running.processes import everyone, over_processes, total_count

if TYPE_CHECKING:
    from prune_core.pruning.pruner import Pruner

__all__ = ["CalibratedCollector"]


class CalibratedCollector(DataCollector):
    """Gathers statistics while the user's own code runs the model.

    With `FROM_TRAINING` in the place of `calibrate`, it gathers from the training that goes on
    anyway, between `follow()` and `stop()`; `collect()` then returns what has come in since it was
    called last.

    Args:
        compressor: The pruner.
        calibrate: Called with the model; runs it on some batches, with backward passes where
            gradients are gathered.
        batches: Stop after this many calls of the model, or None for as many as it makes.

    Attributes:
        seen: How often the model has been called.
        forgets: Whether `collect()` begins anew with each call when it follows a training.
    """

    forgets: ClassVar[bool] = True

    def __init__(
        self, compressor: Pruner, calibrate: Calibrate, batches: int | None = None
    ) -> None:
        super().__init__(compressor)
        UserFunction(calibrate, "calibrate")  # which says what is wrong with it
        if batches is not None and (not isinstance(batches, int) or batches < 1):
            raise ConfigError(f"batches is {batches!r}; it must be a whole number of at least 1.")
        self.calibrate, self.batches = calibrate, batches
        self.seen = 0
        self._sums: dict[str, Tensor] = {}
        self._handles: list[RemovableHandle] = []
        self._task: Task | None = None

    @property
    def follows(self) -> bool:
        """Whether the data come from a training that somebody else makes."""
        return self.calibrate is FROM_TRAINING

    @property
    def source(self) -> str:
        """What the data come from, at the beginning of a sentence."""
        return "The training" if self.follows else "calibrate(model)"

    @property
    def trains(self) -> bool:
        """Whether the model learns meanwhile, so that there may be steps that do not count."""
        return self.follows

    @property
    def had_enough(self) -> bool:
        """Whether more batches than were asked for have come in from a training, which goes on."""
        return self.follows and self.batches is not None and self.seen > self.batches

    def reset(self) -> None:
        """Forget the statistics of an earlier calibration."""
        self.seen, self._sums = 0, {}

    @abstractmethod
    def hook(self, wrapper: PrunerModuleWrapper) -> list[RemovableHandle]:
        """Attach what calls `add()` whenever the module has been used.

        Args:
            wrapper: The wrapped module.
        """

    def begin(self, tokens: Tensor | None) -> None:
        """Hear that a batch begins, and which of its tokens are no padding, if that is known.

        Args:
            tokens: Which tokens are no padding, or None if that is not known.
        """

    def add(self, name: str, value: Tensor) -> None:
        """Add to the running sum of a module.

        Args:
            name: The module.
            value: What one batch adds.
        """
        if self.had_enough:
            return
        if self.trains:
            # A step that a gradient scaler will skip says nothing; it must not spoil the others.
            value = torch.where(value.isfinite().all(), value, torch.zeros_like(value))
        self._sums[name] = value if name not in self._sums else self._sums[name] + value

    def finish(self, name: str, total: Tensor) -> Tensor:
        """Turn the sum over all batches, and over all processes, into the data of a module.

        Args:
            name: The module.
            total: The sum over all batches.
        """
        return total

    def watch(self) -> None:
        """Gather from every run of the model from now on, until `stop()`."""
        self.reset()
        self._attach()

    def follow(self) -> None:
        """Gather from the training that goes on, in addition to what has been gathered."""
        if not self._handles:
            self._attach()

    def _attach(self) -> None:
        model = self.compressor.bound_model
        count = Watcher(self._count, model)
        self._handles = [model.register_forward_pre_hook(count, with_kwargs=True)]
        try:
            for wrapper in self.compressor.get_modules_wrapper().values():
                self._handles += self.hook(wrapper)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Gather no longer; what has been gathered stays."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def places(self) -> dict[str, torch.device]:
        """Return the name of everything that is summed up, and the device that it is on."""
        wrappers = self.compressor.get_modules_wrapper()
        return {name: w.parameter(w.target).device for name, w in wrappers.items()}

    def lacking(self) -> list[str]:
        """Return the modules of which nothing has been gathered yet, in any process."""
        wrappers = self.compressor.get_modules_wrapper()
        known = {name for names in everyone(list(self._sums)) for name in names}
        return [name for name in wrappers if name not in known]

    def gathered(self) -> dict[str, Tensor]:
        """Return the data of all batches so far, those of other processes included."""
        wrappers = self.compressor.get_modules_wrapper()
        seen, sums = total_count(self.seen), over_processes(self._sums, self.places())
        if not seen and not sums:
            raise PruneError(f"{self.source} never ran the model, so there is nothing to score.")
        missing = [name for name in wrappers if name not in sums]
        if missing:
            why = f"{self.why}." if self.follows or not self.hint else f"{self.why}{self.hint}"
            raise PruneError(f"{self.source} gathered nothing for {missing[0]!r}: {why}")
        return {name: self.finish(name, sums[name]) for name in wrappers}

    def collect(self) -> dict[str, Tensor]:
        """Run the calibration and return what was gathered."""
        if self.follows:
            data = self.gathered()
            if self.forgets:
                self.reset()
            return data
        name = type(self.compressor).__name__
        with Task(f"{name}, calibration", self.batches, "batch") as self._task:
            self.watch()
            try:
                self.calibrate(self.compressor.bound_model)
            except Enough:
                pass
            finally:
                self.stop()
                self._task = None
        return self.gathered()

    # What is wrong where a module has no data, and how a calibration may have brought that about.
    why, hint = "the module was not used", ""

    def _count(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None
    ) -> None:
        if kwargs is None:
            return  # torch calls a hook once more, and in this way, if one before it removes it
        if self.batches is not None and self.seen >= self.batches and not self.follows:
            raise Enough
        self.seen += 1
        self.begin(getattr(self.compressor, "tokens", padding_of)(args, kwargs))
        if self._task is not None:
            self._task.advance()

    def state_dict(self) -> dict[str, Any]:
        """Return what has been gathered so far."""
        return {"seen": self.seen, "sums": dict(self._sums)}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on with what `state_dict()` returned.

        Args:
            state_dict: What `state_dict()` returned.
        """
        places = self.places()
        self.seen = state_dict["seen"]
        self._sums = {name: total.to(places[name]) for name, total in state_dict["sums"].items()}
