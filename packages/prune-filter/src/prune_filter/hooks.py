"""What prune-filter registers."""
