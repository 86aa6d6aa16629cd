# SPDX-License-Identifier: GPL-2.0-only
"""This machine: running programs, block devices, the lock of all commands, files."""
