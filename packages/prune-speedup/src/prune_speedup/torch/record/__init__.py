"""Recording one forward of a model, and leaving the model as it was."""
