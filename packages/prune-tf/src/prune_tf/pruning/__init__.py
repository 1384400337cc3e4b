"""Rules become targets, targets are scored, scores become masks."""
