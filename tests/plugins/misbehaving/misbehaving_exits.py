"""A module that prints and ends the program when it is imported."""

import sys

print("printed at import")
sys.exit(0)
