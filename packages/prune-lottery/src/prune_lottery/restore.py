"""The finished rounds of a lottery, and how they are put back into the model."""

from __future__ import annotations

from typing import Any

from torch import nn

from prune_core.errors import ConfigError
from prune_core.masking import Masks, PrunerModuleWrapper, unwrap
from prune_core.options import ChecksOptions
from prune_lottery.criterion import Criterion
from prune_lottery.ema import wrap_average
from prune_lottery.history import MaskHistory
from prune_lottery.result import RoundRecord
from prune_lottery.rewind import Rewind
from prune_lottery.rewind_points import RewindPoints
from prune_lottery.training import State, Training

__all__ = ["FinishedRounds"]


class FinishedRounds(metaclass=ChecksOptions):
    """Puts a finished round into the model: its ticket, or its trained weights.

    Attributes:
        records: What each finished round came to.
    """

    rewind: Rewind
    seed: int
    training: Training
    criterion: Criterion
    history: MaskHistory
    rewind_points: RewindPoints
    records: list[RoundRecord]
    _trained: dict[int, State]
    _averaged: dict[str, PrunerModuleWrapper]

    @property
    def model(self) -> nn.Module:
        """The model."""
        return self.training.model

    @property
    def wrappers(self) -> dict[str, PrunerModuleWrapper]:
        """The wrappers that hold the masks, by the names of their modules."""
        return self.criterion.wrappers

    def masks(self, index: int) -> Masks:
        """Return the masks of a round, `{module name: {tensor name: mask}}`."""
        self._check_finished(index)
        return self.history.masks(index)

    def ticket(self, index: int) -> None:
        """Put the ticket of a round into the model: its masks, and the weights it began with.

        Where weights are not rewound (`"learning_rate"`, `"none"`), the model must hold the round
        before, trained.
        """
        self.put_masks(self.history.masks(index))
        self.rewind_points.go(self.rewind, self.wrappers, self.seed + index)

    def restore(self, index: int) -> None:
        """Put the trained weights of a round into the model. The last and the best are kept."""
        self._check_finished(index)
        if index not in self._trained:
            raise ConfigError(
                f"The trained weights of round {index} are not kept, only those of "
                f"{sorted(self._trained)}, the best and the last round; ticket({index}) gives the "
                "weights that it began with."
            )
        self.put_masks(self.history.masks(index))
        self.training.put(self._trained[index])

    def restart(self) -> None:
        """Restore everything to the state in which the lottery was created, without masks."""
        self.history.forget(0)
        self.put_masks(self.history.masks(0))
        self.training.put(self.rewind_points.initial)

    def put_back(self) -> None:
        """Undo an unfinished round."""
        self.history.forget(len(self.records))
        if self.records:
            self.restore(self.records[-1].index)
        else:
            self.restart()

    def put_masks(self, masks: Masks) -> None:
        """Apply masks, and change nothing else."""
        self.criterion.pruner.load_masks(masks)
        for name in self._averaged.keys() & masks.keys():
            self._averaged[name].set_masks(masks[name])

    def _wrap(self) -> None:
        self.criterion.pruner.wrap()
        self._averaged = wrap_average(self.training.ema, self.criterion.wrappers)
        self.put_masks({name: wrapper.masks for name, wrapper in self.wrappers.items()})

    def unwrap(self) -> nn.Module:
        """Take the wrappers out of model and average, zeros where masks were; return the model."""
        self.criterion.pruner.unwrap()
        if isinstance(self.training.ema, nn.Module):
            unwrap(self.training.ema, self._averaged.values())
        return self.model

    def record(
        self, index: int, score: float | None, log: Any, stopped: bool = False
    ) -> RoundRecord:
        """Describe the model under its masks as the outcome of a round."""
        layers = {
            name: wrapper.masked_count(wrapper.target)
            / wrapper.module.get_parameter(wrapper.target).numel()
            for name, wrapper in self.wrappers.items()
        }
        return RoundRecord(index, self._sparsity(), layers, score, log, stopped)

    def _sparsity(self) -> float:
        wrappers = self.wrappers.values()
        masked = sum(wrapper.masked_count(wrapper.target) for wrapper in wrappers)
        return masked / sum(w.module.get_parameter(w.target).numel() for w in wrappers)

    def _check_finished(self, index: int) -> None:
        if not 0 <= index < len(self.records):
            raise ConfigError(
                f"Round {index} is not finished; {len(self.records)} rounds are, counted from 0."
            )
