"""`python -m benchmark` is `bench`, also from a checkout that is not installed."""

import sys

from benchmark.cli import main

if __name__ == "__main__":
    sys.exit(main())
