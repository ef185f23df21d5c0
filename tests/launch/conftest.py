"""The fake engine and its driver are imported by name, here and in the launcher processes of the tests."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
