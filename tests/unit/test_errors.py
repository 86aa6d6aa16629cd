# SPDX-License-Identifier: GPL-2.0-only
"""Every code belongs to one exit code, and every code that is used is known."""

import re
from pathlib import Path

import pytest

from dmremap import errors
from dmremap.errors import CODES, Busy, Exit, Refused, error

SOURCES = Path(errors.__file__).parent


def test_every_code_has_an_exit_code_and_words() -> None:
    for name, code in CODES.items():
        assert re.fullmatch(r"DMR-E[1-8]\d\d", name)
        assert Exit(int(name[5])) is not Exit.OK
        assert code.title
        assert code.meaning.endswith(".")
        assert code.action.endswith(".")


def test_every_code_in_the_sources_is_known() -> None:
    used = {
        code
        for path in SOURCES.rglob("*.py")
        for code in re.findall(r"DMR-E\d{3}", path.read_text())
    }
    assert used <= set(CODES)


def test_an_error_takes_its_class_from_its_code() -> None:
    err = error("DMR-E401", "it is mounted")
    assert isinstance(err, Busy)
    assert err.exit == 4
    assert err.hint == CODES["DMR-E401"].action
    assert err.as_dict() == {
        "code": "DMR-E401",
        "message": "it is mounted",
        "hint": err.hint,
        "exit": 4,
        "notes": [],
    }


def test_a_class_refuses_a_code_of_another() -> None:
    with pytest.raises(ValueError, match="DMR-E401"):
        Refused("DMR-E401", "wrong")
