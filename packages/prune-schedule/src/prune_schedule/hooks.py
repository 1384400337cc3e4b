"""What prune-schedule registers."""
