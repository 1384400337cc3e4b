"""How older releases called the pruners of this package, as tables; see `prune_core.compat`.

The orders are those of NNI 2.9 (an evaluator), 2.1 (trainer after optimizer), and 1.9 (optimizer
alone). That of 2.0 to 2.8, `trainer, traced_optimizer, criterion`, is the constructors' own.
"""

from prune_core.compat import NoEffect, Older, order
from prune_toolkit.compat import MODES

__all__ = ["ACTIVATION", "MOVEMENT", "SLIM", "STATISTICS"]

_TRAINED = MODES | Older(renamed={"optimizer": "traced_optimizer"})
_BATCHES = _TRAINED | Older(
    renamed={
        "sparsifying_training_batches": "training_batches",
        "statistics_batch_num": "training_batches",
    }
)

STATISTICS = _BATCHES | Older(
    orders=[
        order("evaluator", "training_steps", "mode", "dummy_input"),
        order(
            *("optimizer", "trainer", "criterion", "sparsifying_training_batches"),
            *("dependency_aware", "dummy_input", "global_sort"),
        ),
        order("optimizer", "statistics_batch_num", "dependency_aware", "dummy_input"),
    ]
)

ACTIVATION = _BATCHES | Older(
    orders=[
        order("evaluator", "training_steps", "activation", "mode", "dummy_input"),
        order(
            *("optimizer", "trainer", "criterion", "activation", "sparsifying_training_batches"),
            *("dependency_aware", "dummy_input"),
        ),
        order(
            *("optimizer", "activation", "statistics_batch_num"),
            *("dependency_aware", "dummy_input"),
        ),
        order("activation", "statistics_batch_num"),
    ]
)

SLIM = _TRAINED | Older(
    orders=[
        order("evaluator", "training_epochs", "scale", "mode"),
        order(
            *("optimizer", "trainer", "criterion", "sparsifying_training_epochs", "scale"),
            *("dependency_aware", "dummy_input"),
        ),
        order("optimizer"),
    ],
    renamed={"sparsifying_training_epochs": "training_epochs"},
    ignored={"dummy_input": NoEffect()},
)

MOVEMENT = _TRAINED | Older(
    orders=[
        order(
            *("evaluator", "warm_up_step", "cool_down_beginning_step", "training_epochs"),
            *("training_steps", "regular_scale", "movement_mode", "sparse_granularity"),
        )
    ],
    renamed={"warmup_step": "warm_up_step", "cooldown_begin_step": "cool_down_beginning_step"},
    ignored={
        "regular_scale": NoEffect(None),
        "movement_mode": NoEffect("hard"),
        "sparse_granularity": NoEffect("finegrained"),
    },
)
