# SPDX-License-Identifier: GPL-2.0-only
"""dmremapctl module"""

import os

import click

from dmremap.cli.common import (
    Result,
    Seconds,
    VerbGroup,
    change_options,
    fields,
    need_root,
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
    need_root("load a module")
    from dmremap.dm import module
    from dmremap.host.lock import locked

    with locked(lock_timeout):
        was = module.is_loaded()
        if not dry_run:
            module.load(file)
    if dry_run:
        text = "It is loaded already." if was else f"Would load {file or module.NAME}."
    else:
        text = "It was loaded already." if was else "Loaded."
    return Result({"dry_run": dry_run, "changed": not was, "module": module.status()}, text)


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
    need_root("unload a module")
    from dmremap.dm import module
    from dmremap.errors import Busy
    from dmremap.host.lock import locked

    with locked(lock_timeout):
        was = module.is_loaded()
        if dry_run and was and (names := module.users()):
            raise Busy("DMR-E408", f"the module is used by {', '.join(names)}")
        if not dry_run:
            module.unload(wait)
    if dry_run:
        text = f"Would unload {module.NAME}." if was else "It is not loaded."
    else:
        text = "Unloaded." if was else "It was not loaded."
    return Result({"dry_run": dry_run, "changed": was, "module": module.status()}, text)


@command.command()
@output_option
def status() -> Result:
    """Show whether the module is loaded, and from which file it would be."""
    from dmremap.dm import module

    root = os.geteuid() == 0
    now = module.status(ask_kernel=root)
    text = fields(
        [
            ("loaded", "yes" if now.loaded else "no"),
            ("version", now.version),
            ("target", now.target),
            ("references", now.references if now.loaded else None),
            ("file", now.file or "none for this kernel"),
        ]
    )
    warnings = () if root or not now.loaded else ("the target's version needs root",)
    return Result({"module": now}, text, warnings=warnings)
