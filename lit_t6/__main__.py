"""`python -m lit_t6` is `python cli.py`, where the package is installed."""

import sys

from lit_t6.cli import main

if __name__ == "__main__":
    sys.exit(main())
