# SPDX-License-Identifier: GPL-2.0-only
"""dmremapctl create"""

from typing import Any

import click

from dmremap import create
from dmremap.cli._make import make, make_options
from dmremap.cli.common import Result


@click.command()
@make_options
def command(**options: Any) -> Result:
    """Make a set of the devices MAIN and SPARE and start it.

    MAIN is the disk that is to be kept in service, SPARE takes what MAIN cannot hold. Both must be
    blank: SPARE in the whole area, MAIN in its first MiB, which gets a tag so that nothing mounts
    the bare disk by mistake. For a disk that holds data see 'adopt'.

    --wipe allows to overwrite data that is not recognised as anything. --force allows to destroy
    file systems, partition tables and old sets. Nothing overrides "in use".
    """
    return make(create, **options)
