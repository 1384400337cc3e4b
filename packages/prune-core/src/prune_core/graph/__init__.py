"""A model as coupled units: which slices of which tensors can only be removed together."""
