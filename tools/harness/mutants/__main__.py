# SPDX-License-Identifier: GPL-2.0-only
"""``python -m harness.mutants``, which tools/mutants runs."""

import sys

from harness.mutants.cli import main

sys.exit(main(sys.argv[1:]))
