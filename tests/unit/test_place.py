# SPDX-License-Identifier: GPL-2.0-only
"""Where a checkout can lie: what works, and what each tool says before it begins where it cannot.

The kinds of places that work, but for the names here, are proven elsewhere: a parent where only
root may enter by tests/vm/test_hostile.py.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from harness.command import quoted
from harness.paths import HARNESS, ROOT

TOOLS = (["bench", "--quick"], ["demo"], ["test", "tests/unit"], ["vm", "run", "--", "true"])


def why_not(path: str, options: str = "rw,relatime", what: str = "the checkout") -> str:
    """Return what is said of a place on a file system that is mounted like this."""
    script = '. "$0"; mount_options() { echo "$OPTIONS"; }; why_not "$1" "$2"'
    argv = ["bash", "-euc", script, str(HARNESS / "place.sh"), what, path]
    environment = {**os.environ, "OPTIONS": options}
    done = subprocess.run(argv, env=environment, capture_output=True, check=True)
    assert not done.stderr
    return done.stdout.decode(errors="surrogateescape").strip()


@pytest.mark.parametrize(
    "path",
    [
        "/root/dm-remap",
        "/tmp/x",
        "/a.b_c+d@e~f-9",
        "/home/é",
        "/runner/x",
        "/system",
        "/" + "a" * 199,
    ],
)
def test_a_good_place(path: str) -> None:
    assert why_not(path) == ""


@pytest.mark.parametrize("options", ["rw,nosuid,nodev", "rw,errors=remount-ro", "rw,relatime"])
def test_a_good_file_system(options: str) -> None:
    assert why_not("/tmp/x", options) == ""


@pytest.mark.parametrize("character", [*" \t\n:,=%#$;&'\"()*?\\|<>`[{!^", "\x07"])
def test_a_name_that_nothing_can_be_built_in(character: str) -> None:
    """Each one but the last five breaks a build on Linux 6.1 or 6.12."""
    said = why_not(f"/tmp/a{character}b")
    assert said.startswith("the kernel's makefiles cannot build in '/tmp/a")
    assert "move the checkout to a path of letters, digits and" in said


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("here", "the checkout cannot be at 'here': name an absolute path"),
        ("/tmp/\udcff", "is no UTF-8: move the checkout"),
        ("/" + "a" * 200, "is too long: move the checkout to a path of at most 200 bytes"),
        ("/" + "é" * 100, "is too long"),
    ],
)
def test_other_bad_names(path: str, said: str) -> None:
    assert said in why_not(path)


def hidden() -> list[str]:
    """Return what init.sh mounts in a guest over what it has of the host's."""
    text = (HARNESS / "init.sh").read_text()
    moved = re.search(r"for name in (.*); do\n\tmount --move", text)
    assert moved
    mounted = re.findall(r"^mount -t \w+ .*/root/(\S+)$", text, re.MULTILINE)
    return sorted({f"/{name.partition('/')[0]}" for name in (*moved[1].split(), *mounted)})


def test_what_guests_hide_is_refused() -> None:
    assert hidden() == ["/dev", "/proc", "/run", "/sys"]
    for top in hidden():
        for path in (top, f"{top}/x/y", f"/tmp/../{top}/x"):
            assert f"cannot be seen by guests, which have a {top} of their own" in why_not(path)


@pytest.mark.parametrize("path", ["/usr", "/usr/src/dm-remap", "/etc/x"])
def test_what_a_build_for_linux_7_hides_is_refused(path: str) -> None:
    assert f"{path} cannot be seen by Debian 13's compiler" in why_not(path)


def test_a_link_into_what_guests_hide(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/run")
    assert "/run/x cannot be seen by guests" in why_not(f"{tmp_path}/link/x")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("rw,nosuid,noexec", "mounted noexec"),
        ("ro,relatime", "mounted read-only"),
    ],
)
def test_a_file_system_that_will_not_do(options: str, said: str) -> None:
    assert said in why_not("/tmp/x", options)


def test_the_file_system_of_what_is_not_there_yet() -> None:
    script = '. "$0"; mount_options /proc/1/nothing/at/all; mount_options /'
    argv = ["bash", "-euc", script, str(HARNESS / "place.sh")]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert [line[:3] for line in done.stdout.splitlines()] == ["rw,", "rw,"]


@pytest.mark.parametrize("tool", TOOLS, ids=lambda words: words[0])
def test_each_tool_says_so_before_it_begins(tool: list[str], tmp_path: Path) -> None:
    """In a place that will not do, and with a cache in one."""
    for home, environment, said in (
        (tmp_path / "a b", {}, "cannot build in"),
        (tmp_path / "ab", {"XDG_CACHE_HOME": "/run/cache"}, "/run/cache cannot be seen by guests"),
        (tmp_path / "ab", {"XDG_CACHE_HOME": "cache"}, "name an absolute path"),
    ):
        shutil.copytree(
            ROOT / "tools",
            home / "tools",
            ignore=shutil.ignore_patterns("*.pyc"),
            dirs_exist_ok=True,
        )
        before = sorted(home.rglob("*"))
        done = subprocess.run(
            [home / "tools" / tool[0], *tool[1:]],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode != 0
        assert said in done.stderr
        assert done.stderr.startswith("prepare: ")
        assert done.stdout == ""
        assert sorted(home.rglob("*")) == before


def test_a_link_to_the_checkout_is_its_place(tmp_path: Path) -> None:
    """A link with a name that would not do itself."""
    home = tmp_path / "ab"
    shutil.copytree(ROOT / "tools", home / "tools")
    (tmp_path / "a link").symlink_to(home)
    done = subprocess.run(
        ["bash", tmp_path / "a link/tools/prepare"],
        env={**os.environ, "XDG_CACHE_HOME": "/dev"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "the cache, XDG_CACHE_HOME" in done.stderr


def test_a_comma_in_a_directory_of_qemu() -> None:
    assert quoted(Path("/tmp/a,b")) == "/tmp/a,,b"
