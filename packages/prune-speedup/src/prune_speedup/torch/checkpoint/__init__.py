"""Pruning checkpoints that are bigger than memory, shard by shard."""
