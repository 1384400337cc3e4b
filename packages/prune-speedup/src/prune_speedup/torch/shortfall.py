"""What to warn of after a model was made smaller: that it is not as small as was asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prune_speedup.torch.report import SpeedupReport

__all__ = ["shortfall"]

NOTABLE = 0.1
"""The share of masked channels that stays, above which somebody should know."""


def shortfall(report: SpeedupReport, *, masks: bool, units: bool) -> str:
    """Return a sentence on what stays although it was asked for; empty if that is not notable.

    Args:
        report: What was done.
        masks: Whether masks were given.
        units: Whether units were given.
    """
    stays = sum(each.channels for each in report.kept)
    if stays > NOTABLE * report.asked:
        first, *others = report.kept
        return (
            f"{stays:,} of {report.asked:,} masked channels stay in the model, "
            f"{'mostly ' if others else ''}those of {first.where}: {first.cause}. {first.remedy}."
        )
    if report.removed or report.asked:
        return ""
    if report.returned:
        return (
            f"Nothing was removed: the forward insists on its sizes, in {report.returned[0]}. "
            "fallback=True shrinks the graph that torch.export makes of the model."
        )
    if units:
        return ""
    if report.masks:
        return (
            "Nothing was removed: the masks cover single weights and no channel as a whole. That "
            "makes a model sparse, not small; an algorithm that prunes output channels, such as "
            "'l1', makes it small."
        )
    if masks:
        return "Nothing was removed: the masks keep everything."
    return (
        "Nothing was removed: there were no masks, and no channel of the parameters is nothing but "
        "zeros."
    )
