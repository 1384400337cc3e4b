"""How far things are: told to plugins, and shown to whoever watches, without configuration.

Every schedule, search, calibration and ticket is a `Task`. It tells the hook `prune_progress`, and
what prune shows by itself is one listener of that hook: a bar in a terminal where rich is
installed, a line that is renewed in a notebook, lines of the logger `prune` elsewhere.
"""

from prune_core.progress.task import Task, note, stage, track

__all__ = ["Task", "note", "stage", "track"]
