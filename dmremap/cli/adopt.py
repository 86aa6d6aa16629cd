# SPDX-License-Identifier: GPL-2.0-only
"""dmremapctl adopt"""

from typing import Any

import click

from dmremap import adopt
from dmremap.cli._make import make, make_options
from dmremap.cli.common import Result


@click.command()
@make_options
def command(**options: Any) -> Result:
    """Put MAIN, a disk that holds data, under a set, in place.

    Nothing is written to MAIN; /dev/mapper/NAME shows it 1:1. SPARE must be blank.

    A udev rule, /etc/udev/rules.d/59-dmremap-UUID.rules, keeps the links in /dev/disk/by-uuid away
    from the bare disk, so that nothing mounts it past the set. 'remove' leaves it in place, for
    the disk must not be used without its set. To take the disk out of dm-remap for good, copy
    the data off the set, remove the set and then that file, and run 'udevadm control --reload'
    and 'udevadm trigger'.
    """
    return make(adopt, **options)
