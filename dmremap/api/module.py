# SPDX-License-Identifier: GPL-2.0-only
"""The kernel module, and the versions of all parts."""

import os
import platform
from dataclasses import dataclass

from dmremap import __version__, dm
from dmremap.api.answer import Answer, need_root
from dmremap.dm import module
from dmremap.dm.module import ModuleStatus
from dmremap.errors import Busy, KernelError, PermissionDenied
from dmremap.host.lock import locked
from dmremap.ondisk import FORMAT_VERSION


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleChange(Answer):
    """What became of the module. changed: whether it was not so before."""

    dry_run: bool
    changed: bool
    module: ModuleStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleAnswer(Answer):
    """How the module is."""

    module: ModuleStatus


def load_module(
    file: str | None = None, *, dry_run: bool = False, lock_timeout: float = 20.0
) -> ModuleChange:
    """Load the module, from a file or as it is installed. lock_timeout: seconds.

    >>> dmremap.load_module().module.loaded
    True

    Errors: KernelError where it cannot be loaded, PermissionDenied but for root, Busy.
    """
    need_root("load a module")
    with locked(lock_timeout):
        was = module.is_loaded()
        if not dry_run:
            module.load(file)
    return ModuleChange(dry_run=dry_run, changed=not was, module=module.status())


def unload_module(
    *, wait: float = 10.0, dry_run: bool = False, lock_timeout: float = 20.0
) -> ModuleChange:
    """Unload the module. wait: seconds for its last users to go. lock_timeout: seconds.

    >>> dmremap.unload_module(dry_run=True).changed
    True

    Errors: Busy while devices use it, with their names; PermissionDenied but for root.
    """
    need_root("unload a module")
    with locked(lock_timeout):
        was = module.is_loaded()
        if dry_run and was and (names := module.users()):
            raise Busy("DMR-E408", f"the module is used by {', '.join(names)}")
        if not dry_run:
            module.unload(wait)
    return ModuleChange(dry_run=dry_run, changed=was, module=module.status())


def module_status() -> ModuleAnswer:
    """Say whether the module is loaded, and from which file it would be.

    >>> dmremap.module_status().module.loaded
    True
    """
    root = os.geteuid() == 0
    now = module.status(ask_kernel=root)
    warnings = () if root or not now.loaded else ("the target's version needs root",)
    return ModuleAnswer(module=now, warnings=warnings)


@dataclass(frozen=True, slots=True, kw_only=True)
class Versions(Answer):
    """The versions of all parts. device_mapper, target: None where the kernel does not say."""

    dmremapctl: str
    python: str
    kernel: str
    libdevmapper: str
    device_mapper: str | None
    target: str | None
    on_disk_format: int


def versions() -> Versions:
    """Return the versions of all parts.

    >>> dmremap.versions().on_disk_format
    2
    """
    driver = target = None
    warnings: tuple[str, ...] = ()
    try:
        driver = dm.driver_version()
        target = module.target_version()
    except (KernelError, PermissionDenied) as err:
        warnings = (err.message,)
    return Versions(
        dmremapctl=__version__,
        python=platform.python_version(),
        kernel=os.uname().release,
        libdevmapper=dm.library_version(),
        device_mapper=driver,
        target=target,
        on_disk_format=FORMAT_VERSION,
        warnings=warnings,
    )
