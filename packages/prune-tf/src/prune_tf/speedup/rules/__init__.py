"""One rule for each kind of layer or operation: what it does to channels."""

from prune_tf.speedup.rules import (
    contraction as contraction,
)
from prune_tf.speedup.rules import (
    einsum as einsum,
)
from prune_tf.speedup.rules import (
    elementwise as elementwise,
)
from prune_tf.speedup.rules import (
    joining as joining,
)
from prune_tf.speedup.rules import (
    movement as movement,
)
from prune_tf.speedup.rules import (
    normalization as normalization,
)
from prune_tf.speedup.rules import (
    pooling as pooling,
)
from prune_tf.speedup.rules import (
    recurrent as recurrent,
)
from prune_tf.speedup.rules import (
    reduction as reduction,
)
from prune_tf.speedup.rules.registry import RULES, Rule, rule, rule_for

__all__ = ["RULES", "Rule", "rule", "rule_for"]
