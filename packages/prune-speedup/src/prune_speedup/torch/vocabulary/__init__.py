"""Vocabularies: the rows of embeddings and heads that belong to tokens."""
