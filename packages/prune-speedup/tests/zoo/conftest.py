"""The models here and their oracle are shared with `benchmarks/zoo`, which runs many more."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
