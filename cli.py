#!/usr/bin/env python
"""The command line of lit_t6: `python cli.py --help`."""

import sys

from lit_t6.cli import main

if __name__ == "__main__":
    sys.exit(main())
