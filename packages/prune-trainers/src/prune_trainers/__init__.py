"""Pruning in the training loops of other libraries.

Each library has a module of its own, which is imported when it is asked for: `prune_trainers.hf`
for transformers, `prune_trainers.pl` for Lightning, `prune_trainers.yolo` for ultralytics,
`prune_trainers.tensorboard`.
"""
