"""Lottery tickets: train, prune, rewind what is left, and train again.

Names are imported when they are first used, so that listing what is registered costs no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prune_lottery.checkpoint import CheckpointError as CheckpointError
    from prune_lottery.control import CONTROLS as CONTROLS
    from prune_lottery.control import run_control as run_control
    from prune_lottery.early_bird import EarlyBird as EarlyBird
    from prune_lottery.pruner import LotteryTicketPruner as LotteryTicketPruner
    from prune_lottery.result import LotteryResult as LotteryResult
    from prune_lottery.result import RoundRecord as RoundRecord
    from prune_lottery.rewind import REWINDS as REWINDS
    from prune_lottery.round import Round as Round
    from prune_lottery.ticket import LotteryTicket as LotteryTicket

_HOME_OF = {
    "CONTROLS": "control",
    "CheckpointError": "checkpoint",
    "EarlyBird": "early_bird",
    "LotteryResult": "result",
    "LotteryTicket": "ticket",
    "LotteryTicketPruner": "pruner",
    "REWINDS": "rewind",
    "Round": "round",
    "RoundRecord": "result",
    "run_control": "control",
}

__all__ = sorted(_HOME_OF)


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module 'prune_lottery' has no attribute {name!r}")
    return getattr(import_module(f"prune_lottery.{home}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME_OF})
