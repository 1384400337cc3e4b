"""What prune-lottery registers."""
