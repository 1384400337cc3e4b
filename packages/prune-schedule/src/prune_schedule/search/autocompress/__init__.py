"""AutoCompress: rounds of annealing, ADMM and speedup."""
