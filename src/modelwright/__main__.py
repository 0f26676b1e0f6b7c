"""``python -m modelwright``."""

from __future__ import annotations

import sys

from modelwright.cli import main

sys.exit(main())
