# SPDX-License-Identifier: GPL-2.0-only
"""The verdict on running sets."""

from dataclasses import dataclass

from dmremap.api.answer import Answer, need_root
from dmremap.health import Reason, State
from dmremap.health import judge as judge_set
from dmremap.sets import live


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """The verdict on a set. reasons: each with a code, a sentence and the next step."""

    name: str
    uuid: str | None
    state: State
    reasons: tuple[Reason, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement(Answer):
    """The verdict on several sets. state: the worst of them, OK where there is none."""

    state: State
    sets: tuple[Judged, ...]


def judge(*names: str) -> Judgement:
    """Judge running sets: those of these names or uuids, or all. Reads neither main nor spare.

    >>> dmremap.judge("backup").state.name
    'OK'

    Errors: NotFound where a set that is named does not run, PermissionDenied but for root.
    """
    need_root("ask the kernel about its sets")
    judged = []
    for running in live.find(names):
        verdict = judge_set(running)
        judged.append(
            Judged(
                name=running.name,
                uuid=running.uuid,
                state=verdict.state,
                reasons=verdict.reasons,
            )
        )
    worst = max((verdict.state for verdict in judged), default=State.OK)
    return Judgement(state=worst, sets=tuple(judged))
