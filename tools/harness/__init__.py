# SPDX-License-Identifier: GPL-2.0-only
"""Boot Debian kernels in QEMU, with disks built to fail, and run commands in them.

The pieces, one job a file:

=============== ====================================================================
``machine``     :class:`~harness.machine.Machine`: boot, run, reboot, kill, close
``disks``       what a disk looks like and which of its sectors fail
``kernels``     which kernels are installed, and where their modules are built
``console``     which console lines fail a test, whatever its exit status
``channel``     the host's end of the line to the guest; ``agent`` is the other end
``initramfs``   the small initramfs (``init.sh``) that mounts the host's root
``accel``       KVM only where it has really booted a guest
``fixtures``    the pytest plugin
``longrun``     ``tools/test --long``: ``parts`` says what is run, ``results`` keeps it
``demo``        what tools/demo shows
``bench``       what tools/bench measures
=============== ====================================================================

Times are seconds, sizes bytes, and a *sector* is 512 bytes unless a name says otherwise.
Nothing here needs more than Python's standard library, but for ``bench``, which writes metadata.
"""
