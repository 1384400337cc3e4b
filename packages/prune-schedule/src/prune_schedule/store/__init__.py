"""What is kept: trials, snapshots, results."""
