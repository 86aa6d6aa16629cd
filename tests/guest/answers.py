# SPDX-License-Identifier: GPL-2.0-only
"""What dmremapctl prints for programs, checked against the schema that it ships."""

import json
from importlib import resources
from typing import Any

import jsonschema

SCHEMA = json.loads(resources.files("dmremap").joinpath("schema/dmremap-1.json").read_text())


def answer(text: str) -> dict[str, Any]:
    """Return an answer of -o json, or one line of -o jsonl."""
    whole: dict[str, Any] = json.loads(text)
    jsonschema.Draft202012Validator(SCHEMA).validate(whole)
    return whole
