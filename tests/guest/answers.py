# SPDX-License-Identifier: GPL-2.0-only
"""What dmremapctl prints for programs, checked against the schema that it ships."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any

import jsonschema

from dmremap.cli import main

if TYPE_CHECKING:
    import pytest

SCHEMA = json.loads(resources.files("dmremap").joinpath("schema/dmremap-1.json").read_text())


def answer(text: str) -> dict[str, Any]:
    """Return an answer of -o json, or one line of -o jsonl."""
    whole: dict[str, Any] = json.loads(text)
    jsonschema.Draft202012Validator(SCHEMA).validate(whole)
    return whole


def ask(capfd: pytest.CaptureFixture[str], *args: object) -> tuple[int, dict[str, Any]]:
    """Run dmremapctl in this process; return its exit code and its answer."""
    capfd.readouterr()
    code = main([*map(str, args), "-o", "json"])
    whole = answer(capfd.readouterr().out)
    assert whole["command"] == args[0]
    return code, whole


@dataclass(frozen=True, slots=True)
class Answer:
    """How dmremapctl ended."""

    code: int
    whole: dict[str, Any]

    @property
    def data(self) -> dict[str, Any]:
        """What a command has to say that has done all of it."""
        assert self.code == 0, self.whole
        data: dict[str, Any] = self.whole["data"]
        return data

    @property
    def error(self) -> str:
        """The code of the error of one that has not."""
        assert self.code, self.whole
        code: str = self.whole["error"]["code"]
        return code
