"""Schedules: sparsity that grows over time."""
