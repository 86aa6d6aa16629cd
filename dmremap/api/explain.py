# SPDX-License-Identifier: GPL-2.0-only
"""What the codes of errors, findings and verdicts mean."""

from dataclasses import dataclass

from dmremap import errors, health
from dmremap.api.answer import Answer
from dmremap.errors import Exit, Usage
from dmremap.ondisk import findings


@dataclass(frozen=True, slots=True, kw_only=True)
class Code:
    """A code. action: the next step.  exit: what dmremapctl ends with, of an error."""

    code: str
    title: str
    meaning: str
    action: str
    exit: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Codes(Answer):
    """Codes and what they mean."""

    codes: tuple[Code, ...]


def explain(code: str | None = None) -> Codes:
    """Explain a code, as DMR-E405 or E405, or all of them.

    >>> dmremap.explain("E405").codes[0].title
    'set is in use'

    Errors: Usage where there is no such code.
    """
    known = {found.code: found for found in _all()}
    if code is None:
        return Codes(codes=tuple(known.values()))
    found = known.get(code.upper()) or known.get(f"DMR-{code.upper()}")
    if found is None:
        raise Usage("DMR-E204", f"there is no code {code!r}")
    return Codes(codes=(found,))


def _all() -> list[Code]:
    return [
        *(
            Code(
                code=name,
                title=code.title,
                meaning=code.meaning,
                action=code.action,
                exit=int(Exit(int(name[5]))),
            )
            for name, code in errors.CODES.items()
        ),
        *(
            Code(
                code=name,
                title=found.title,
                meaning=found.meaning,
                action=found.next_step,
                exit=None,
            )
            for name, found in findings.CODES.items()
        ),
        *(
            Code(
                code=name,
                title=verdict.title,
                meaning=verdict.meaning,
                action=verdict.next_step.format(name="NAME", sector="SECTOR"),
                exit=None,
            )
            for name, verdict in health.CODES.items()
        ),
    ]
