# SPDX-License-Identifier: GPL-2.0-only
"""The kernel module dm_remap: load, unload, look."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dmremap import dm
from dmremap.dm.lines import TARGET
from dmremap.errors import Busy, KernelError, NotFound
from dmremap.host.run import run

NAME: Final = "dm_remap"
SYSFS: Final = Path("/sys")


@dataclass(frozen=True, slots=True)
class ModuleStatus:
    """What is known about the module. `target` is the version of the loaded target type."""

    loaded: bool
    version: str | None
    references: int
    target: str | None
    file: str | None


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return None


def is_loaded(sysfs: Path = SYSFS) -> bool:
    """Say whether the module is in the kernel."""
    return (sysfs / "module" / NAME).is_dir()


def target_version() -> str | None:
    """Return the version of the target type that the kernel has now; root only."""
    for target in dm.targets():
        if target.name == TARGET:
            return ".".join(str(part) for part in target.version)
    return None


def find_file() -> str | None:
    """Return the module's file for the running kernel."""
    result = run(["modinfo", "-F", "filename", NAME], check=False)
    return result.stdout.strip() or None if result.returncode == 0 else None


def status(*, ask_kernel: bool = True, sysfs: Path = SYSFS) -> ModuleStatus:
    """Return what is known. Without `ask_kernel` nothing needs root."""
    base = sysfs / "module" / NAME
    count = _read(base / "refcnt")
    return ModuleStatus(
        loaded=is_loaded(sysfs),
        version=_read(base / "version") or _read(base / "srcversion"),
        references=int(count) if count and count.isdigit() else 0,
        target=target_version() if ask_kernel and is_loaded(sysfs) else None,
        file=find_file(),
    )


def load(file: str | None = None) -> None:
    """Load the module, or a file of the user's; nothing to do if it is there."""
    if is_loaded():
        return
    if file is None:
        if find_file() is None:
            raise KernelError("DMR-E703", f"there is no module {NAME} for the running kernel")
        result = run(["modprobe", NAME], check=False)
    else:
        if not Path(file).is_file():
            raise NotFound("DMR-E302", f"{file} does not exist")
        found = run(["modinfo", "-F", "depends", file], check=False)
        if found.returncode:
            raise KernelError("DMR-E704", f"{file} is not a kernel module: {found.complaint}")
        # insmod does not resolve them. What is built in fails here and is not missed.
        for needed in filter(None, found.stdout.strip().split(",")):
            run(["modprobe", needed], check=False)
        result = run(["insmod", file], check=False)
    if result.returncode or not is_loaded():
        raise KernelError(
            "DMR-E704", f"the module was not loaded: {result.complaint or 'no reason'}"
        )


def ensure(*, dry_run: bool = False) -> None:
    """See that the target is there, loading the module if need be."""
    if is_loaded() or target_version() is not None:
        return
    if dry_run:
        if find_file() is None:
            raise KernelError("DMR-E703", f"there is no module {NAME} for the running kernel")
        return
    load()


def users() -> list[str]:
    """Return the names of the devices that use the target."""
    names = []
    for device in dm.list_devices():
        try:
            lines = dm.table(device.name) + dm.table(device.name, inactive=True)
        except NotFound:
            continue
        if any(line.type == TARGET for line in lines):
            names.append(device.name)
    return names


def unload(timeout: float = 10.0) -> None:
    """Unload the module, waiting a while for the last reference to go.

    A device that uses the target is never removed for this: it is named.
    """
    if not is_loaded():
        return
    holding = users()
    if holding:
        raise Busy("DMR-E408", f"the module is used by {', '.join(holding)}")
    end = time.monotonic() + timeout
    while True:
        result = run(["rmmod", NAME], check=False)
        if not is_loaded():
            return
        if time.monotonic() >= end:
            break
        time.sleep(0.1)
    if "in use" in result.complaint:
        raise Busy("DMR-E408", f"the module is in use: {result.complaint}")
    raise KernelError("DMR-E706", f"the module was not unloaded: {result.complaint}")
