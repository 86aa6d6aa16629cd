# SPDX-License-Identifier: GPL-2.0-only
"""How well a set is, and what to do about it.

`evaluate` is the one judge: `status`, `health` and `monitor` all ask it, the
first two through `judge`, so they cannot disagree.  All of it is pure; the
caller reads the status.
"""

from dmremap.health.codes import CODES, HealthCode
from dmremap.health.judge import judge
from dmremap.health.policy import (
    DEFAULT_POLICY,
    Policy,
    Reason,
    State,
    Verdict,
    combine,
    evaluate,
    never_started,
)

__all__ = [
    "CODES",
    "DEFAULT_POLICY",
    "HealthCode",
    "Policy",
    "Reason",
    "State",
    "Verdict",
    "combine",
    "evaluate",
    "judge",
    "never_started",
]
