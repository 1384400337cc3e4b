"""Masks that follow a timetable of epochs, optimizer steps or rounds."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping

from prune_core import ConfigError, PruneError
from prune_core.progress import note
from prune_core.timetable import Curve, Unit
from prune_schedule.run.delegating import set_sparsity
from prune_schedule.timed.rounds import RoundsPruner

__all__ = ["TimedMasks"]


class TimedMasks(RoundsPruner):
    """Applies the current sparsity; a subclass saves and restores the state."""

    _curve: Curve
    # Where time has got to, and the sparsity that each entry of the config has by now.
    _now: dict[Unit, int]
    _in_force: dict[int, float]
    # Whether the state has just been restored, and whether anything has been trained since.
    _resumed: bool
    _trained: bool

    @abstractmethod
    def _keep(self) -> None:
        """Write a checkpoint, if there is to be one."""

    @property
    def epoch(self) -> int:
        """The epoch of the last `update_epoch()`; a resumed loop starts here."""
        return self._now["epoch"]

    @property
    def steps(self) -> int:
        """How many optimizer steps have been made."""
        return self._now["step"]

    def update_epoch(self, epoch: int) -> None:
        """Tell the schedule that an epoch begins; masks change if they are due."""
        self._only_while_training("update_epoch()")
        if self._resumed and epoch == self.epoch:
            # What the user's program has drawn since it started again does not count.
            self._snapshots.restore_random_numbers()
            self._resumed = False
            return
        self._now["epoch"] = max(epoch, self.epoch)
        super().update_epoch(epoch)
        self._prune()
        self._trained = True  # when this is called again, or when weights have changed
        self._keep()

    def step(self) -> None:
        """Tell the schedule of an optimizer step; called for each step of `optimizer`."""
        self._only_while_training("step()")
        self._now["step"] += 1
        self._trained = True
        super().step()
        if self._prune():
            self._keep()

    def _prune(self) -> bool:
        """Apply the current sparsities, and return whether they have changed."""
        wanted = {
            index: growth.sparsity(self._now[growth.unit], self._curve)
            for index, growth in self.timetables.items()
        }
        if wanted == self._in_force:
            return False
        # A sparsity of 0 needs no data, no scores and no masks.
        if any(wanted.values()):
            if missing := self._training.missing():
                self._wait_for_data(missing)
                return False
            self._tell(wanted)
            self.one_shot.compress()
            if self.speedup:
                # Training then sees the model that will be left, and not one with more in it.
                self._close(self.dummy_input)
        self._in_force = wanted
        if self.total_iteration is None and any(wanted.values()):
            self._say()
        if self._at_the_end:
            self._training.stop()
        return True

    @property
    def _at_the_end(self) -> bool:
        """Whether every entry has reached its final sparsity."""
        return all(self._now[growth.unit] >= growth.last for growth in self.timetables.values())

    def _say(self) -> None:
        """Report the current sparsity."""
        units = {growth.unit for growth in self.timetables.values()}
        when = " and ".join(f"{unit} {self._now[unit]}" for unit in sorted(units))
        sparsity = max(self._in_force.values(), default=0.0)
        final = ", the final one; masks stay as they are now" if self._at_the_end else ""
        note(type(self).__name__, f"{when}, sparsity {sparsity:.1%}{final}", always=bool(final))

    def _wait_for_data(self, missing: list[str]) -> None:
        """Keep the masks for now; the next step or epoch tries again."""
        if self.total_iteration is not None:
            name = type(self.one_shot).__name__
            if not self._done:
                raise ConfigError(
                    f"Round 0 prunes before anything has been trained, and {name} needs data from "
                    "the training. Begin with 'initial_sparsity' 0, or give calibrate=, a function "
                    "that takes the model and runs it on some batches."
                )
            raise PruneError(
                f"{name} needs data from the training, and the fine-tuning of round "
                f"{self._done - 1} has provided none for {missing[0]!r}. It has to run the model "
                "that it is given, in training mode and with backward(); or give calibrate=."
            )
        if self._trained:
            self._training.warn(missing)

    def prune_for_round(self, number: int) -> float:
        """Prune to the sparsity of a round, and return it."""
        self._now["round"] = number
        self._prune()
        return max(self._in_force.values(), default=0.0)

    def _tell(self, wanted: Mapping[int, float]) -> None:
        for wrapper in self.get_modules_wrapper().values():
            if wrapper.config["entry"] in wanted:
                set_sparsity(wrapper.config, wanted[wrapper.config["entry"]])

    def _only_while_training(self, call: str) -> None:
        if self.total_iteration is not None:
            raise PruneError(
                f"{call} is for schedules that follow your own training; this one has "
                f"total_iteration={self.total_iteration} and runs rounds in run() or compress()."
            )
