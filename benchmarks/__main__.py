"""``python -m benchmarks NAME [--quick]``, which is what ``make bench`` calls."""

from __future__ import annotations

import sys

from benchmarks.run import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
