# SPDX-License-Identifier: GPL-2.0-only
"""The control plane of dm-remap.

Imports run one way: cli -> monitor, selftest -> health -> sets -> dm, ondisk -> host -> errors.
Nothing here does I/O at import.
"""

__version__ = "0.1.0"
