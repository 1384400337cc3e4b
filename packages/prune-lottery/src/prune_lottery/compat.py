"""The call forms of NNI for `LotteryTicketPruner`, as a table; see `prune_core.compat`.

The orders are those of NNI 2.5 to 2.8 and of 2.9. That of 1.9, `optimizer, lr_scheduler,
reset_weights`, is the constructor's own.
"""

from prune_core.compat import Older, order

__all__ = ["LOTTERY"]

_KEPT = ("log_dir", "keep_intermediate_result")

LOTTERY = Older(
    orders=[
        order(
            *("pruning_algorithm", "total_iteration", *_KEPT, "finetuner", "speedup"),
            *("dummy_input", "evaluator", "reset_weight", "pruning_params"),
        ),
        order(
            *("pruning_algorithm", "total_iteration", *_KEPT, "evaluator", "speedup"),
            *("reset_weight", "pruning_params"),
        ),
    ],
    renamed={
        "finetuner": "finetune",
        "evaluator": "evaluate",
        "reset_weight": "reset_weights",
        "speed_up": "speedup",
    },
)
