# SPDX-License-Identifier: GPL-2.0-only
"""Power cuts, replayed from one log of everything that reached two disks.

``server`` is a disk server that QEMU uses for both legs; it writes the log. ``log`` reads it and
builds what the disks would hold if the power had gone at any point of it.
"""
