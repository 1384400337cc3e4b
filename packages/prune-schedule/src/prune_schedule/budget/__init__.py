"""What may be left of a model, and which sparsities keep to it."""
