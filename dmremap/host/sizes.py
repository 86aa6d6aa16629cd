# SPDX-License-Identifier: GPL-2.0-only
"""Sizes as people read them."""


def binary_size(count: int) -> str:
    """Return a number of bytes for people, in the largest unit of 1024 that it fills.

    >>> dmremap.binary_size(1536)
    '1.5 KiB'
    """
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024 or unit == "TiB":
            return f"{value:.0f} {unit}" if value == int(value) else f"{value:.1f} {unit}"
        value /= 1024
    raise AssertionError
