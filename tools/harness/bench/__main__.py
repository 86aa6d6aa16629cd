# SPDX-License-Identifier: GPL-2.0-only
"""``python -m harness.bench``, which tools/bench runs."""

import sys

from harness.bench.cli import main

sys.exit(main(sys.argv[1:]))
