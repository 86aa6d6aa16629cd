# SPDX-License-Identifier: GPL-2.0-only
"""Lets `python3 -m dmremap` be dmremapctl."""

import sys

from dmremap.cli import main

sys.exit(main())
