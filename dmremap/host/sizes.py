# SPDX-License-Identifier: GPL-2.0-only
"""Sizes as people read them."""


def binary(count: int) -> str:
    """Return a number of bytes, in the largest unit of 1024 that it fills."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024 or unit == "TiB":
            return f"{value:.0f} {unit}" if value == int(value) else f"{value:.1f} {unit}"
        value /= 1024
    raise AssertionError
