# SPDX-License-Identifier: GPL-2.0-only
"""What ``tools/vm`` does."""

from __future__ import annotations

import argparse
import logging
import re
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from harness import debugkernel, kernels, paths, process
from harness.command import TERMINAL, command
from harness.disks import Disk
from harness.errors import HarnessError, MachineFailure
from harness.machine import Machine

if TYPE_CHECKING:
    from harness.kernels import Kernel

DESCRIPTION = """\
Run a command, or a shell for a person, in a virtual machine with dm-remap loaded.

The guest sees the host's files, read-only below a memory disk: nothing it does to them
stays. Nothing is ever loaded into the host's own kernel.
"""
EXIT_HARNESS = 69
EXIT_MACHINE = 70
UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
FIRST_BAD = 1 << 13
BAD_STRIDE = 64


def size(text: str) -> int:
    """Return a number of bytes: 4096, 64M, 1G."""
    parsed = re.fullmatch(r"(\d+)([KMG]?)", text.upper())
    if parsed is None or int(parsed[1]) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no size: write 64M or 1G")
    return int(parsed[1]) * UNITS[parsed[2]]


def seconds(text: str) -> float:
    """Return a number of seconds above 0."""
    value = float(text)
    if value <= 0:
        raise argparse.ArgumentTypeError("a timeout is more than 0 seconds")
    return value


def parse(argv: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="tools/vm",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="{shell,run,kernel}")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--kernel", choices=kernels.ALL, default="6.12", help="series (default: %(default)s)"
    )
    common.add_argument(
        "--size",
        type=size,
        default=256 << 20,
        help="of each of the two disks, such as 64M (default: 256M)",
    )
    common.add_argument(
        "--bad",
        type=int,
        default=8,
        metavar="N",
        help="sectors of disk 'main' that fail reads and writes: "
        f"{FIRST_BAD}, {FIRST_BAD + BAD_STRIDE}, ... (default: %(default)s)",
    )
    verbs.add_parser(
        "shell",
        parents=[common],
        help="a prompt in a guest",
        description="A root prompt in a guest with two disks: 'main', whose bad sectors are "
        "medium errors, and 'spare'. Leave with 'exit', or Ctrl-A X.",
    )
    runner = verbs.add_parser(
        "run",
        parents=[common],
        help="one command in a guest",
        usage="tools/vm run [options] -- CMD...",
        description="Run a command as root in a guest with the same two disks, pass its output "
        f"on, and exit with its status. {EXIT_MACHINE}: the guest's kernel failed, as standard "
        f"error says; {EXIT_HARNESS}: no guest could be started.",
    )
    runner.add_argument("--udev", action="store_true", help="start systemd-udevd in the guest")
    runner.add_argument(
        "--timeout",
        type=seconds,
        default=600.0,
        metavar="S",
        help="seconds until it counts as hung (default: 600)",
    )
    runner.add_argument(
        "--keep", type=Path, metavar="DIR", help="keep the console's log and the disks there"
    )
    runner.add_argument("command", nargs="+", metavar="CMD", help="the command, after two dashes")
    flavours = debugkernel.FLAVOURS.values()
    builder = verbs.add_parser(
        "kernel",
        help="build a debug kernel",
        description="Build a kernel that --kernel and the tests boot: Linux 6.12 from Debian's "
        "source, as the fragments of its configuration in tools/harness say. "
        f"{'; '.join(f'{one.name}: with {one.purpose}' for one in flavours)}. It is kept in "
        "~/.cache/dm-remap, so that this takes ten to twenty minutes once, and prints where it is.",
    )
    builder.add_argument(
        "flavour",
        nargs="?",
        choices=kernels.FLAVOURS,
        default=kernels.DEBUG,
        help="which one (default: %(default)s)",
    )
    return parser.parse_args(argv)


def disks(options: argparse.Namespace) -> list[Disk]:
    """Return the two disks: main fails as a real one does, with medium errors."""
    bad = frozenset(range(FIRST_BAD, FIRST_BAD + options.bad * BAD_STRIDE, BAD_STRIDE))
    if bad and max(bad) >= options.size // 512:
        raise HarnessError(
            f"a disk of {options.size} bytes has no room for {options.bad} bad sectors: use --size"
        )
    main = Disk(
        name="main",
        size=options.size,
        kind="scsi",
        errno=61,
        dpofua=True,
        bad_read=bad,
        bad_write=bad,
    )
    return [main, Disk(name="spare", size=options.size, kind="scsi", dpofua=True)]


def find_built(series: str) -> Kernel:
    """Return a kernel with our modules built for it from the sources as they are now."""
    options = {kernels.DEBUG: ["--test"], kernels.KCSAN: ["--kcsan"]}.get(series, [])
    if process.attach(["bash", paths.ROOT / "tools/prepare", *options], stdout=sys.stderr) != 0:
        raise HarnessError("tools/prepare failed")
    return kernels.find(series)


def shell(kernel: Kernel, options: argparse.Namespace, workdir: Path) -> int:
    """Give a person a prompt."""
    machine = Machine(kernel, disks(options), workdir=workdir)
    for disk in machine.disks:
        disk.create(machine.workdir)
    argv = command(machine.hardware, machine.disks, machine.faults, machine.workdir, TERMINAL)
    return process.attach(argv)


def run(kernel: Kernel, options: argparse.Namespace, workdir: Path) -> int:
    """Run one command."""
    machine = Machine(kernel, disks(options), workdir=workdir, udev=options.udev)

    def echo(text: str) -> None:
        print(text, end="", flush=True)

    with machine:
        for module in sorted(path.stem for path in kernel.build.rglob("*.ko")):
            machine.insmod(module)
        result = machine.run(
            options.command,
            timeout=options.timeout,
            check=False,
            cwd=Path.cwd(),
            echo=echo,
        )
    return result.status


def main() -> int:
    """Do what the command line says."""
    options = parse(sys.argv[1:])
    logging.basicConfig(level=logging.INFO, format="vm: %(message)s")
    try:
        if options.verb == "kernel":
            print(debugkernel.build(debugkernel.FLAVOURS[options.flavour]))
            return 0
        kernel = find_built(options.kernel)
        with tempfile.TemporaryDirectory(prefix="vm-") as directory:
            workdir = getattr(options, "keep", None) or Path(directory)
            verb = {"shell": shell, "run": run}[options.verb]
            return verb(kernel, options, workdir)
    except MachineFailure as failure:
        print(f"vm: {failure.kind}: {failure.line}\n{failure.tail}", file=sys.stderr)
        return EXIT_MACHINE
    except HarnessError as error:
        print(f"vm: {error}", file=sys.stderr)
        return EXIT_HARNESS
