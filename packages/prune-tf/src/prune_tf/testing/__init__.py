"""What `prune_core.testing.check_pruner` checks of a pruner for Keras, and on what."""

from prune_tf.testing.contract import CHECKS
from prune_tf.testing.subject import KerasSubject, subject
from prune_tf.testing.toys import convolutional, make_batch

__all__ = ["CHECKS", "KerasSubject", "convolutional", "make_batch", "subject"]
