# SPDX-License-Identifier: GPL-2.0-only
"""Run files of tests/guest in one guest, one after the other, and say what became of each.

``python -m harness.mutants.inside --kernel SERIES NAME...`` prints a line of JSON for each file:
``step``, ``ok``, ``how``, ``seconds``. Before each the modules are loaded anew. It ends after the
first that fails, unless told to ``--keep-going``; and where a file leaves the module in use, so
that the caller goes on with another guest. With ``--gcov DIR`` what each has counted is left in
DIR/NAME, with ``--python DIR`` what coverage.py has.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from pathlib import Path

from vm.inside import GUEST, pytest_for
from vm.test_guest import UDEVD_ONLY

from harness import counted, kernels, paths
from harness.errors import FailureKind, HarnessError, MachineFailure
from harness.machine import CommandFailed, Machine

MODULES = ("dm_remap", "dm_fault")
COUNT = "/run/count-lines"
FAILED = re.compile(r"^(?:FAILED|ERROR) (.*)$", re.MULTILINE)


def say(step: str, *, ok: bool, how: str, begin: float) -> None:
    """Print what became of a file."""
    row = {"step": step, "ok": ok, "how": how, "seconds": round(time.monotonic() - begin, 1)}
    print(json.dumps(row), flush=True)


def why(output: str, status: int) -> str:
    """Return in one line how pytest failed."""
    found = FAILED.search(output)
    return found[1][:200] if found else f"pytest ended with status {status}"


def run_file(vm: Machine, name: str, seconds: float, *, python: bool) -> str:
    """Run a file; return how it failed, or nothing."""
    env = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "COLUMNS": "240"}
    if python:
        vm.run(["mkdir", "-p", f"{COUNT}/{name}"])
        ini = paths.HARNESS / "coverage.ini"
        env |= {counted.START: str(ini), "DMREMAP_COVERAGE": f"{COUNT}/{name}/count"}
    argv = [*pytest_for(vm), "-q", "-x", str(GUEST / name)]
    done = vm.run(argv, cwd=paths.ROOT, env=env, timeout=seconds, check=False)
    return why(done.output, done.status) if done.status else ""


def counted_lines(vm: Machine, name: str, gcov: Path | None, python: Path | None) -> None:
    """Copy what a file has counted out of the guest."""
    if gcov:
        (gcov / name).mkdir(parents=True, exist_ok=True)
        counted.collect(vm, gcov / name)
    if python:
        (python / name).mkdir(parents=True, exist_ok=True)
        for path in vm.run(["find", f"{COUNT}/{name}", "-type", "f"]).stdout.split():
            (python / name / Path(path).name).write_bytes(vm.read_file(path))


def run_all(vm: Machine, options: argparse.Namespace, seconds: list[float]) -> None:
    """Run the files until one fails."""
    for number, name in enumerate(options.names):
        if number:
            try:
                vm.run(["rmmod", *MODULES])
            except CommandFailed:
                return  # in use
        begin = time.monotonic()
        try:
            if options.gcov:
                vm.shell("echo 1 >/sys/kernel/debug/gcov/reset")
            vm.insmod(*MODULES)
            how = run_file(vm, name, seconds[number], python=options.python is not None)
        except MachineFailure as failure:
            say(name, ok=False, how=f"{failure.kind}: {failure.line}", begin=begin)
            return
        except CommandFailed as failure:
            how = f"the module is not loaded: {failure.result.output.strip()[:200]}"
        say(name, ok=not how, how=how, begin=begin)
        counted_lines(vm, name, options.gcov, options.python)
        if how and not options.keep_going:
            return


def main() -> int:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(prog="harness.mutants.inside")
    parser.add_argument("--kernel", required=True)
    parser.add_argument("--seconds", default="", help="for each file, with commas between")
    parser.add_argument("--keep-going", action="store_true")
    parser.add_argument("--gcov", type=Path)
    parser.add_argument("--python", type=Path)
    parser.add_argument("names", nargs="+")
    options = parser.parse_args()
    kernel = kernels.find(options.kernel)
    seconds = [float(word) for word in options.seconds.split(",") if word]
    seconds = seconds or [1400.0] * len(options.names)
    begin = time.monotonic()
    udev = set(options.names) <= UDEVD_ONLY
    try:
        with Machine(kernel, workdir=paths.BUILD / "guest", udev=udev) as vm:
            run_all(vm, options, seconds)
    except MachineFailure as failure:
        if failure.kind is FailureKind.BOOT:
            print(f"inside: {failure}", file=sys.stderr)
            return 2
        # Of the last file: its tests have passed, and the console says otherwise.
        how = f"{failure.kind}: {failure.line}"
        say(options.names[0], ok=False, how=how, begin=begin)
    except HarnessError as error:
        print(f"inside: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
