# SPDX-License-Identifier: GPL-2.0-only
"""The self test."""

from collections.abc import Callable
from dataclasses import dataclass

from dmremap import selftest
from dmremap.api.answer import Answer, need_root
from dmremap.selftest import Backing, Step


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """A phase of the self test that has succeeded. seconds: how long it took."""

    phase: str
    seconds: float
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SelfTest(Answer):
    """A self test that has passed."""

    phases: tuple[Phase, ...]


def self_test(
    *,
    report: Callable[[Phase], None] | None = None,
    backing: Backing = "loop",
    directory: str | None = None,
    main_mib: int = 16,
    module_file: str | None = None,
) -> SelfTest:
    """Try the whole life of a set on this machine, on devices of its own, and take them apart.

    backing: loop devices over files in `directory` (None: the one for temporary files), or ram
    disks. main_mib: the size of the main device; the spare has half of it. module_file: the module
    to load, None: the installed one. report: gets each phase as it has succeeded.

    >>> len(dmremap.self_test().phases)
    12

    Errors: that of the first phase that fails, as Failure where a byte is wrong; PermissionDenied
    but for root.
    """
    need_root("run the self test")
    plan = selftest.Plan(backing, directory, main_mib, max(main_mib // 2, 3), module_file)
    phases: list[Phase] = []

    def note(step: Step) -> None:
        phase = Phase(phase=step.name, seconds=round(step.seconds, 3), detail=step.detail)
        phases.append(phase)
        if report:
            report(phase)

    selftest.perform(plan, note)
    return SelfTest(phases=tuple(phases))
