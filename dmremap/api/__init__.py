# SPDX-License-Identifier: GPL-2.0-only
"""The verbs, for programs: what `import dmremap` offers and what the command line is made of.

One verb a file. Each checks who asks, takes the lock where something is changed, goes on with the
next set where one fails, and returns a frozen dataclass: an `Answer`. Rules about one set live
below, in `sets/` and `health/`. What is public stands in `dmremap/__init__.py`.
"""
