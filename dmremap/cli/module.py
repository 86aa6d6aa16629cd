# SPDX-License-Identifier: GPL-2.0-only
"""dmremapctl module"""

import click

from dmremap import load_module, module_status, unload_module
from dmremap.cli.common import (
    Result,
    Seconds,
    VerbGroup,
    change_options,
    fields,
    output_option,
)


@click.group(cls=VerbGroup)
def command() -> None:
    """Load, unload or look at the kernel module dm_remap."""


@command.command()
@click.option("--file", metavar="KO", help="Load this file, such as one from a build tree.")
@change_options
@output_option
def load(
    file: str | None,
    dry_run: bool,
    yes: bool,  # noqa: ARG001 - nothing is asked here
    lock_timeout: float,
) -> Result:
    """Load the module."""
    done = load_module(file, dry_run=dry_run, lock_timeout=lock_timeout)
    if dry_run:
        text = f"Would load {file or 'dm_remap'}." if done.changed else "It is loaded already."
    else:
        text = "Loaded." if done.changed else "It was loaded already."
    return Result(done, text)


@command.command()
@click.option("--wait", type=Seconds(), default=10.0, show_default=True, metavar="SECONDS")
@change_options
@output_option
def unload(
    wait: float,
    dry_run: bool,
    yes: bool,  # noqa: ARG001 - nothing is asked here
    lock_timeout: float,
) -> Result:
    """Unload the module. Refused, with their names, while devices use it."""
    done = unload_module(wait=wait, dry_run=dry_run, lock_timeout=lock_timeout)
    if dry_run:
        text = "Would unload dm_remap." if done.changed else "It is not loaded."
    else:
        text = "Unloaded." if done.changed else "It was not loaded."
    return Result(done, text)


@command.command()
@output_option
def status() -> Result:
    """Show whether the module is loaded, and from which file it would be."""
    answer = module_status()
    now = answer.module
    text = fields(
        [
            ("loaded", "yes" if now.loaded else "no"),
            ("version", now.version),
            ("target", now.target),
            ("references", now.references if now.loaded else None),
            ("file", now.file or "none for this kernel"),
        ]
    )
    return Result(answer, text)
