"""Long acceptance runs: `make soak`. The packages are not installed there, so their folders are added."""

import sys
from pathlib import Path

_ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(_ROOT / folder) for folder in ("api", "gateway")]
