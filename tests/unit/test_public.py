# SPDX-License-Identifier: GPL-2.0-only
"""What `import dmremap` offers: which names, what they take, what they return.

It stands in golden/public.txt. What is public stays; a change here is one of the version.
"""

import ast
import dataclasses
import enum
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import dmremap

GOLDEN = Path(__file__).with_name("golden") / "public.txt"
NAMES = [name for name in dmremap.__all__ if not name.startswith("__")]
VERBS = [name for name in NAMES if inspect.isfunction(getattr(dmremap, name))]


def described(name: str) -> Iterator[str]:
    """Yield the lines that say what a public name is."""
    thing = getattr(dmremap, name)
    if inspect.isfunction(thing):
        yield f"{name}{inspect.signature(thing)}"
    elif not isinstance(thing, type):  # one type or another
        yield f"{name}: {thing}"
    elif issubclass(thing, enum.Enum):
        yield f"{name}: {', '.join(f'{member.name}={member.value!r}' for member in thing)}"
    elif issubclass(thing, BaseException):
        yield f"{name}({thing.__mro__[1].__name__})"
    elif dataclasses.is_dataclass(thing):
        yield f"{name}({', '.join(base.__name__ for base in thing.__mro__[1:-1])})"
        for field in dataclasses.fields(thing):
            yield f"    {field.name}: {inspect.formatannotation(field.type)}"


def test_what_is_public_is_what_it_was() -> None:
    now = [line for name in NAMES for line in described(name)]
    assert GOLDEN.read_text().splitlines() == now, "\n".join(now)


def test_names_stand_once_for_the_type_checker_and_once_for_python() -> None:
    source = ast.parse(Path(dmremap.__file__).read_text())
    checked = {
        (node.module, alias.name, alias.asname or alias.name)
        for node in ast.walk(source)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if node.module != "importlib"
    }
    loaded = set()
    for module, words in dmremap._HOMES.items():
        for word in words.split():
            theirs, _, ours = word.partition("=")
            loaded.add((module, theirs, ours or theirs))
    assert checked == loaded
    assert sorted(dmremap.__all__) == sorted([*(ours for *_, ours in loaded), "__version__"])


def test_nothing_is_imported_before_it_is_used() -> None:
    code = (
        "import sys, dmremap; assert 'status' in dir(dmremap); "
        "print([m for m in sys.modules if m.startswith('dmremap.')]); "
        "dmremap.DmRemapError; "
        "print([m for m in sys.modules if m.startswith('dmremap.')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[]", "['dmremap.errors']"]


def test_what_is_not_public_is_no_name() -> None:
    with pytest.raises(AttributeError, match="module 'dmremap' has no attribute 'nothing'"):
        _ = dmremap.nothing  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", NAMES)
def test_every_public_name_is_explained(name: str) -> None:
    thing = getattr(dmremap, name)
    if isinstance(thing, type) or inspect.isfunction(thing):
        assert thing.__doc__


@pytest.mark.parametrize("name", VERBS)
def test_every_verb_has_an_example(name: str) -> None:
    """They are run in a guest: tests/guest/test_public.py."""
    assert re.search(rf">>> .*dmremap\.{name}\(", getattr(dmremap, name).__doc__)


@pytest.mark.parametrize(
    "name", sorted(set(VERBS) - {"binary_size", "module_status", "to_dict", "versions"})
)
def test_every_verb_says_which_errors(name: str) -> None:
    doc = getattr(dmremap, name).__doc__
    assert "Errors: " in doc or "Arguments and errors are those of" in doc
