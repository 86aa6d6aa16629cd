# SPDX-License-Identifier: GPL-2.0-only
"""Ask Debian's archive for packages of any of its releases, without installing them.

apt does it, with a list of sources, an index and a cache of its own: what this machine has
installed, and what it would install, stays as it is. The archive is the one that this machine uses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.cache import cache
from harness.errors import HarnessError
from harness.process import Argument, run

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
BASE = "bookworm"
"""The release that this machine is, whose sources are looked at."""
SUITES = ("bookworm", "bookworm-updates", "bookworm-backports", "trixie", "trixie-backports")
SECURITY = ("bookworm-security", "trixie-security")
SECONDS = 900.0
OURS = "amd64"


def archives(listed: str) -> dict[str, str]:
    """Return the address of each suite of Debian's, from what ``apt-get indextargets`` printed.

    Others have suites of the same name. What has never been fetched has no origin yet.

    >>> archives("bookworm http://extra/ Extra\\nbookworm http://mirror/ Debian\\n")
    {'bookworm': 'http://mirror/'}
    """
    found: dict[str, str] = {}
    for line in listed.splitlines():
        suite, uri, origin = line.split(" ", 2)
        if origin == "Debian" or "ORIGIN" in origin:
            found.setdefault(suite, uri)
    return found


def source(uri: str, suite: str) -> str:
    """Return a line of our list."""
    return f"deb [signed-by={KEYRING}] {uri} {suite} main\n"


def sources(known: dict[str, str]) -> str:
    """Return the lines of our list: all of the archive, and its security part if that is known."""
    security = known.get(f"{BASE}-security")
    suites = [(known[BASE], suite) for suite in SUITES]
    suites += [(security, suite) for suite in SECURITY if security]
    return "".join(source(*one) for one in suites)


def _known() -> dict[str, str]:
    shown = ("--format", "$(RELEASE) $(REPO_URI) $(ORIGIN)")
    found = archives(run(["apt-get", "indextargets", *shown, "Created-By: Packages"]))
    if BASE not in found:
        raise HarnessError(f"apt has no source for {BASE}: this is for Debian 12")
    return found


def mirror() -> str:
    """Return the address of Debian's archive, as this machine's apt has it."""
    return _known()[BASE]


def home(architecture: str = OURS) -> Path:
    """Return where our index of an architecture is."""
    return cache() / ("apt" if architecture == OURS else f"apt-{architecture}")


def _settings(architecture: str) -> str:
    where = home(architecture)
    settings = {
        "APT::Architecture": architecture,
        "APT::Architectures": architecture,
        "Dir::Etc::sourcelist": where / "sources.list",
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::Etc::preferences": "/dev/null",
        "Dir::Etc::preferencesparts": "/dev/null",
        "Dir::State::lists": where / "lists",
        "Dir::State::status": where / "status",
        "Dir::Cache": where,
        "Acquire::Languages": "none",
        # Its user could not write below root's home.
        "APT::Sandbox::User": "root",
        "APT::Update::Error-Mode": "any",
    }
    return "".join(f'{name} "{value}";\n' for name, value in settings.items())


def _apt(program: str, *words: Argument, architecture: str = OURS) -> list[Argument]:
    # What stands there overrules this machine's own configuration; its proxies are kept.
    return [program, "-c", home(architecture) / "apt.conf", *words]


def update(architecture: str = OURS) -> None:
    """Fetch the index anew; one that cannot be had is an error, and the old one stays.

    Of another architecture there is the release only that this machine is.
    """
    where = home(architecture)
    for name in ("lists/partial", "archives/partial"):
        (where / name).mkdir(parents=True, exist_ok=True)
    (where / "status").touch()
    (where / "apt.conf").write_text(_settings(architecture))
    known = _known()
    ours = sources(known) if architecture == OURS else source(known[BASE], BASE)
    (where / "sources.list").write_text(ours)
    run(_apt("apt-get", "-qq", "update", architecture=architecture), timeout=SECONDS)


def names(prefix: str) -> list[str]:
    """Return the names of the packages that begin so."""
    return run(_apt("apt-cache", "pkgnames", prefix)).split()


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Return the version of each package that would be downloaded."""
    shown = run(_apt("apt-cache", "show", "--no-all-versions", *packages))
    fields = [line.split(": ", 1) for line in shown.splitlines() if ": " in line]
    found = [value for name, value in fields if name in {"Package", "Version"}]
    return dict(zip(found[::2], found[1::2], strict=True))


def unpack(
    packages: Sequence[str], scratch: Path, target: Path, *, architecture: str = OURS
) -> None:
    """Download packages and unpack them; none of their scripts is run."""
    scratch.mkdir()
    download = _apt("apt-get", "-q", "download", *packages, architecture=architecture)
    run(["env", "-C", scratch, *download], timeout=SECONDS)
    for package in sorted(scratch.glob("*.deb")):
        run(["dpkg-deb", "--extract", package, target], timeout=SECONDS)


_ADD = """
export DEBIAN_FRONTEND=noninteractive
cd /var/cache/apt/archives
set -- *.deb
[ ! -e "$1" ] || dpkg --unpack --force-confold "$@"
dpkg --configure -a
rm -f -- "$@"
"""


def install(packages: Sequence[str], root: Path, suite: str) -> None:
    """Install packages of a release, and what they depend on, in a root of it."""
    options = {
        "Dir::State::status": root / "var/lib/dpkg/status",
        "Dir::Cache::archives": root / "var/cache/apt/archives",
        "APT::Default-Release": suite,
    }
    words = [f"--option={name}={value}" for name, value in options.items()]
    # What was interrupted is mended.
    words += ["--quiet", "--yes", "--fix-broken", "--no-install-recommends", "--download-only"]
    run(_apt("apt-get", *words, "install", *packages), timeout=SECONDS)
    # What its scripts mount goes with its namespace.
    run(["unshare", "--mount", "chroot", root, "sh", "-euc", _ADD], timeout=SECONDS)
