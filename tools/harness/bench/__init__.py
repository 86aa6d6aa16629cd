# SPDX-License-Identifier: GPL-2.0-only
"""What dm-remap costs, measured in emulated guests, and the bar for each number.

============ =======================================================================
``plan``     the sets that are measured and where I/O goes; pure
``rows``     one number and its bar; the table and the JSON; pure
``cost``     instructions and memory, in a guest whose clock counts instructions
``load``     how long a load takes, on a throttled disk
``bios``     what a failing write costs, counted by the fault device
``control``  what dmremapctl takes, in a guest whose clock counts instructions
``devices``  null_blk in a guest
``run``      all of it for one kernel
``cli``      what ``tools/bench`` does
``iocost.c`` runs in the guest: instructions of one pread or pwrite
============ =======================================================================
"""
