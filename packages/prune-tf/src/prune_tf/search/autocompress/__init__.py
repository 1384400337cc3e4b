"""AutoCompress: rounds of annealing, ADMM and shrinking."""
