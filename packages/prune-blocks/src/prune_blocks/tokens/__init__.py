"""Tokens of a vocabulary: which of them go."""
