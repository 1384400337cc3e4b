"""What prune-trainers registers."""
