"""What prune-tf registers."""
