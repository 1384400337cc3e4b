"""What prune-report registers."""

from __future__ import annotations
