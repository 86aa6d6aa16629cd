# SPDX-License-Identifier: GPL-2.0-only
"""dmremapctl version"""

import os
import platform

import click

from dmremap import __version__
from dmremap.cli.common import Result, fields, output_option


@click.command()
@output_option
def command() -> Result:
    """Show the versions of all parts."""
    from dmremap import dm
    from dmremap.dm import module
    from dmremap.errors import KernelError, PermissionDenied
    from dmremap.ondisk import FORMAT_VERSION

    driver = target = None
    warnings: tuple[str, ...] = ()
    try:
        driver = dm.driver_version()
        target = module.target_version()
    except (KernelError, PermissionDenied) as err:
        warnings = (err.message,)
    data = {
        "dmremapctl": __version__,
        "python": platform.python_version(),
        "kernel": os.uname().release,
        "libdevmapper": dm.library_version(),
        "device_mapper": driver,
        "target": target,
        "on_disk_format": FORMAT_VERSION,
    }
    return Result(data, fields(data.items()), warnings=warnings)
