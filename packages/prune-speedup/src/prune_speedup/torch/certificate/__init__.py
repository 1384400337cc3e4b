"""A certificate: why the small model computes what the masked one does, for others to check."""
