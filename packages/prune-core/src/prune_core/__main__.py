"""`python -m prune_core` is the `prune` command."""

from prune_core.cli import main

if __name__ == "__main__":
    main()
