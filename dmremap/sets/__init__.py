# SPDX-License-Identifier: GPL-2.0-only
"""Sets: find, make, start, stop, grow, look after.

The superblock on the spare is the only truth about a set; nothing is kept anywhere else, but for
the newest epoch that this host has seen of an adopted one, which the spare cannot say itself.
"""
