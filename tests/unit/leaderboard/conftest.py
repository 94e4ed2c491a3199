"""Makes `factory` importable for the tests of this folder and of the browser tests."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
