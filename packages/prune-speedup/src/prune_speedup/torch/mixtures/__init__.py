"""Mixtures of experts: finding them in any model, and removing experts from them."""
