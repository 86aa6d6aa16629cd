# SPDX-License-Identifier: GPL-2.0-only
"""Following what happens to the sets of this machine.

sources: hints from udev or the kernel that something happened.  scan: the
kernel's state of all sets.  tracker: what did happen, as the difference of two
scans.  hooks: the user's program.  loop: the one thread that ties them together.
"""
