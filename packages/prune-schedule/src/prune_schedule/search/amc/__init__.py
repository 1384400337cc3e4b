"""AMC: reinforcement learning for the sparsity of each layer."""
