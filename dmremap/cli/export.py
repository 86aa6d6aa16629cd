# SPDX-License-Identifier: GPL-2.0-only
"""dmremapctl export"""

from uuid import UUID

import click

from dmremap import Usage, export_metadata
from dmremap.cli._meta import start_option, uuid_option
from dmremap.cli.common import Result, fields, output_option, progress


@click.command()
@click.option("--metadata", is_flag=True, help="Save the set's metadata; needed.")
@click.argument("device")
@click.argument("file")
@click.option("--force", is_flag=True, help="Replace FILE if it exists.")
@start_option
@uuid_option
@output_option
def command(
    metadata: bool, device: str, file: str, force: bool, start: int, uuid: UUID | None
) -> Result:
    """Save the metadata of the set on DEVICE, its spare, to FILE.

    The file says which blocks live in which slots, so that both copies of the metadata can be
    brought back by 'import'. What is in the slots is not saved. It is good until the next block is
    mapped: make a new one then. The set may be running.
    """
    if not metadata:
        raise Usage("DMR-E201", "say what to save: --metadata")
    done = export_metadata(device, file, start=start, uuid=uuid, force=force, progress=progress())
    shown = [("set", done.name or None), ("uuid", done.uuid), ("file", file), ("bytes", done.bytes)]
    return Result(done, lambda: fields(shown))
