"""Controls for a ticket: the same masks with other weights, and other masks."""

from __future__ import annotations

from collections.abc import Iterable

from prune_core.errors import ConfigError, did_you_mean
from prune_core.progress import Task
from prune_lottery.callables import Evaluate, Train, score_of, trainer_of
from prune_lottery.result import RoundRecord
from prune_lottery.rewind import REWINDS, Rewind
from prune_lottery.shuffle import shuffled
from prune_lottery.ticket import LotteryTicket

__all__ = ["CONTROLS", "run_control"]

RANDOM_MASK = "random_mask"
CONTROLS = (
    RANDOM_MASK,
    *(name for name in REWINDS if Rewind.parse(name.replace("k", "1")).redraws),
)


def run_control(
    lottery: LotteryTicket,
    kind: str,
    *,
    train: Train,
    evaluate: Evaluate | None = None,
    rounds: Iterable[int] | None = None,
) -> tuple[RoundRecord, ...]:
    """Train controls of the tickets of a finished lottery.

    A lottery with a checkpoint keeps the controls in it, and goes on where it was killed.

    Args:
        lottery: The lottery; its model holds the last round again afterwards.
        kind: `"random_mask"` for random masks of the same sparsity in each layer, with the
            ticket's own initial weights; or a rewind with random weights, such as `"reinit"`, for
            the ticket's masks with new weights.
        train: As for `LotteryTicket.run`.
        evaluate: As for `LotteryTicket.run`.
        rounds: Whose tickets; those of all rounds unless given.

    Returns:
        A record for each.
    """
    if kind not in CONTROLS:
        raise ConfigError(
            f"kind is {kind!r}; controls are {', '.join(map(repr, CONTROLS))}."
            f"{did_you_mean(kind, CONTROLS)}"
        )
    indices = list(rounds) if rounds is not None else list(range(1, len(lottery.records)))
    done = {record.index: record for record in lottery.controls.get(kind, [])}
    rewind = _rewind_of(lottery, kind)
    trainer = trainer_of(train, f"rewind={rewind.spec!r}" if rewind.step else None)
    try:
        with Task("LotteryTicket", len(indices), "control", kind, announce=True) as task:
            for index in indices:
                masks = lottery.masks(index)
                if index not in done:
                    # Each control begins where a resumed run would find itself, random numbers
                    # included.
                    lottery.put_back()
                    seed = lottery.seed + 1000 * (1 + CONTROLS.index(kind)) + index
                    if kind == RANDOM_MASK:
                        masks = shuffled(masks, lottery.wrappers, seed)
                    lottery.put_masks(masks)
                    lottery.rewind_points.go(rewind, lottery.wrappers, seed)
                    log = trainer(lottery.model, lottery.round_at(index, rewind.step))
                    done[index] = lottery.record(index, score_of(evaluate, lottery.model), log)
                    lottery.controls[kind] = [done[i] for i in sorted(done)]
                    lottery.save()
                score = done[index].score
                task.advance(
                    f"{kind}, round {index}" + ("" if score is None else f", score {score:.4g}")
                )
    finally:
        lottery.put_back()
    return tuple(done[index] for index in indices)


def _rewind_of(lottery: LotteryTicket, kind: str) -> Rewind:
    if kind != RANDOM_MASK:
        return Rewind.parse(kind)
    # Trained weights of another mask would be no control, so these begin where a ticket would.
    kept = lottery.rewind.keeps_weights or lottery.rewind.redraws
    return Rewind.parse("init") if kept else lottery.rewind
