"""How user functions and one-shot pruners are run."""
