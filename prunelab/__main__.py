"""`python -m prunelab`: the same as the command `prunelab`."""

from __future__ import annotations

import sys

from prunelab.site.cli import main

sys.exit(main())
