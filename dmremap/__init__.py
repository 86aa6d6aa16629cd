# SPDX-License-Identifier: GPL-2.0-only
"""The control plane of dm-remap.

Imports run one way: cli -> sets, health, monitor, selftest -> dm, ondisk, table, safety.
Nothing here does I/O at import.
"""

__version__ = "0.1.0"
