# SPDX-License-Identifier: GPL-2.0-only
"""What people do on a file system: files copied and built, SQLite, PostgreSQL.

Each workload works in a directory, and later, after whatever happened to the disk, says whether all
that it was promised is there.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sqlite3
import tarfile
import time
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Protocol

from guest.lib import MIB, ROOT, CommandError, run

if TYPE_CHECKING:
    from collections.abc import Iterator

LIBRARIES = Path("/usr/lib/x86_64-linux-gnu")
"""Where a Debian has real files of every size."""


class Workload(Protocol):
    """One thing to do in a directory that is its own; `scale` is 1, or more with --long."""

    def work(self, home: Path, scale: int) -> None:
        """Do it; whatever a program reports as an error is raised."""

    def verify(self, home: Path) -> None:
        """Assert that all is there, after the file system was mounted again."""


def checksums(top: Path) -> dict[str, str]:
    """Return what every file, link and directory below one holds."""
    return {os.fspath(path.relative_to(top)): _sum(path) for path in sorted(top.rglob("*"))}


def _sum(path: Path) -> str:
    if path.is_symlink():
        return f"link {path.readlink()}"
    if path.is_dir():
        return "directory"
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# Files


def real_files(size: int) -> Iterator[Path]:
    """Choose files of this machine, so many bytes together, the same each time."""
    for path in sorted(LIBRARIES.iterdir()):
        if path.is_file() and not path.is_symlink() and path.stat().st_size <= 8 * MIB:
            yield path
            size -= path.stat().st_size
            if size <= 0:
                return


class Files:
    """Copied in, some overwritten, moved, cut short and removed; every byte as at its source."""

    SIZE = 16 * MIB

    def __init__(self) -> None:
        self.kept: dict[str, Path] = {}

    def work(self, home: Path, scale: int) -> None:
        random = Random(7)
        for path in real_files(self.SIZE * scale):
            target = home / path.name
            if not random.randrange(4):  # what it replaces is longer, and on other blocks
                target.write_bytes(random.randbytes(path.stat().st_size + 20_000))
                os.sync()
            shutil.copyfile(path, target)
            if not random.randrange(8):
                target.unlink()
            elif not random.randrange(4):
                target = target.rename(home / f"{path.name}.moved")
                self.kept[target.name] = path
            else:
                self.kept[target.name] = path

    def verify(self, home: Path) -> None:
        assert sorted(path.name for path in home.iterdir()) == sorted(self.kept)
        for name, source in self.kept.items():
            assert (home / name).read_bytes() == source.read_bytes(), name


MAKEFILE = """\
FLAGS = -O0 -w -fPIC -include shim.h -I linux-headers -I .
OBJECTS = {objects}
load.so: $(OBJECTS)
	cc -shared -Wl,--no-undefined -o $@ $(OBJECTS)
%.o: %.c shim.h dm-remap.h
	cc $(FLAGS) -c -o $@ $<
"""


class Build:
    """An archive of sources is made, unpacked and built: the kernel's loader as a library.

    It is what tests/unit/test_check_kernel.py makes of the same sources.
    """

    LOADER = (
        "run",
        "dm-remap-area",
        "dm-remap-identity",
        "dm-remap-commit",
        "dm-remap-load",
        "dm-remap-slots",
    )

    def work(self, home: Path, scale: int) -> None:
        self.scale = scale
        archive = home / "sources.tar.gz"
        with tarfile.open(archive, "w:gz", compresslevel=1) as tar:
            for folder in ("kernel", "tests/unit/kernelshim", "docs", "dmremap", "tools"):
                tar.add(ROOT / folder, folder, filter=_source)
        for number in range(scale):
            self._build(home / f"copy{number}", archive)

    def _build(self, home: Path, archive: Path) -> None:
        home.mkdir()
        run("tar", "-C", home, "-xzf", archive)
        build = home / "build"
        build.mkdir()
        for folder in ("kernel", "tests/unit/kernelshim"):
            for path in (home / folder).iterdir():
                (build / path.name).symlink_to(Path("..", folder, path.name))
        for source in ("dm-remap.h", *(f"{name}.c" for name in self.LOADER[1:])):
            text = (home / "kernel" / source).read_text()
            for name in re.findall(r"#include <(linux/[^>]+)>", text):
                header = build / "linux-headers" / name
                header.parent.mkdir(parents=True, exist_ok=True)
                header.touch()
        objects = " ".join(f"{name}.o" for name in self.LOADER)
        (build / "Makefile").write_text(MAKEFILE.format(objects=objects))
        run("make", "-C", build, "load.so")

    def verify(self, home: Path) -> None:
        for number in range(self.scale):
            build = home / f"copy{number}/build"
            run("make", "-C", build, "--question", "load.so")
            assert " T run\n" in run("nm", build / "load.so")
        run("tar", "-C", home / "copy0", "--compare", "-zf", home / "sources.tar.gz")


def _source(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    return entry if entry.isdir() or entry.name.endswith((".c", ".h", ".py", ".md")) else None


# Databases


@dataclass
class Sqlite:
    """Transactions beside a model in memory, with a rollback journal and with a log."""

    rows: dict[str, dict[int, bytes]] = field(default_factory=dict)

    MODES = ("delete", "wal")

    def work(self, home: Path, scale: int) -> None:
        for mode in self.MODES:
            with closing(sqlite3.connect(home / f"{mode}.db", isolation_level=None)) as database:
                self.rows[mode] = self._transactions(database, mode, 25 * scale)

    def _transactions(
        self, database: sqlite3.Connection, mode: str, count: int
    ) -> dict[int, bytes]:
        random = Random(mode)
        assert database.execute(f"PRAGMA journal_mode={mode}").fetchone() == (mode,)
        database.execute("PRAGMA synchronous=FULL")
        database.execute("PRAGMA cache_size=50")  # pages: most of it is read from the disk again
        database.execute("CREATE TABLE rows (id INTEGER PRIMARY KEY, data BLOB, sum TEXT)")
        database.execute("CREATE INDEX by_sum ON rows (sum)")
        rows: dict[int, bytes] = {}
        for number in range(count):
            new = dict(rows)
            database.execute("BEGIN IMMEDIATE")
            for _ in range(20):
                key, data = random.randrange(400), random.randbytes(random.randrange(3000))
                if random.randrange(5):
                    values = (key, data, hashlib.sha256(data).hexdigest())
                    database.execute("INSERT OR REPLACE INTO rows VALUES (?, ?, ?)", values)
                    new[key] = data
                else:
                    database.execute("DELETE FROM rows WHERE id = ?", (key,))
                    new.pop(key, None)
            if number % 5 == 4:
                database.execute("ROLLBACK")
            else:
                database.execute("COMMIT")
                rows = new
        return rows

    def verify(self, home: Path) -> None:
        for mode, rows in self.rows.items():
            with closing(sqlite3.connect(home / f"{mode}.db")) as database:
                assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
                assert dict(database.execute("SELECT id, data FROM rows")) == rows


class Postgres:
    """A cluster that is loaded, used by four clients, stopped without a checkpoint, recovered."""

    BIN = Path("/usr/lib/postgresql/15/bin")
    USER = "postgres"
    CLIENTS = 4
    SETTINGS = (
        "listen_addresses=''",
        "unix_socket_directories='/run/pg'",
        "shared_buffers=4MB",  # so that pages are written and read again
        "max_wal_size=8MB",
        "min_wal_size=2MB",
        "checkpoint_timeout=30s",
        "autovacuum=off",
    )

    def _run(self, program: str, *argv: str | Path, check: bool = True) -> str:
        """Run a program of PostgreSQL's, as somebody who is not root."""
        user = ("setpriv", "--reuid", self.USER, "--regid", self.USER, "--clear-groups")
        try:
            return run(*user, "env", "-C", "/", "LC_ALL=C", self.BIN / program, *argv, timeout=240)
        except CommandError:
            if check:
                raise
            return ""

    def _sql(self, query: str) -> str:
        return self._run("psql", "-h", "/run/pg", "-AtXc", query, "postgres").strip()

    def _server(self, home: Path, *what: str) -> None:
        self._run("pg_ctl", "-w", "-t", "120", "-s", "-D", home / "data", *what)

    def _start(self, home: Path) -> None:
        run("install", "-d", "-o", self.USER, "/run/pg")
        self._server(home, "-l", f"{home}/log", "start")

    def _stop(self, home: Path, mode: str) -> None:
        self._server(home, "-m", mode, "stop")

    def _consistent(self) -> None:
        """Every transaction that was acknowledged is there, and the three tables agree."""
        tables = [f"(SELECT sum({t[0]}balance) FROM pgbench_{t})" for t in ("accounts", "branches")]
        tables += ["(SELECT sum(tbalance) FROM pgbench_tellers)"]
        tables += ["(SELECT sum(delta) FROM pgbench_history)"]
        sums = set(self._sql(f"SELECT {', '.join(tables)}").split("|"))
        assert len(sums) == 1, sums
        assert int(self._sql("SELECT count(*) FROM pgbench_history")) == self.transactions

    def work(self, home: Path, scale: int) -> None:
        self.transactions = 0
        self.scale = scale
        run("chown", self.USER, home)
        options = ("--no-sync", "--data-checksums", "--wal-segsize=1", "--auth=trust")
        self._run("initdb", *options, "--no-locale", "-D", home / "data")
        with (home / "data/postgresql.conf").open("a") as file:
            file.writelines(f"{line}\n" for line in self.SETTINGS)
        self._start(home)
        self._run("pgbench", "-h", "/run/pg", "-i", "-q", "-s", str(scale), "postgres")
        for _ in range(scale):
            self._bench(20 * scale)
            self._stop(home, "immediate")
            self._start(home)
            self._consistent()
        self._stop(home, "fast")

    def _bench(self, count: int) -> None:
        done = self._run(
            "pgbench", "-h", "/run/pg", "-n", "-c", str(self.CLIENTS), "-t", str(count), "postgres"
        )
        assert "number of failed transactions: 0 " in done
        self.transactions += self.CLIENTS * count

    def verify(self, home: Path) -> None:
        self._run("pg_checksums", "--check", "-D", home / "data")
        self._start(home)
        self._consistent()
        if self.scale > 1:
            self._sql("CREATE EXTENSION amcheck")
            self._run("pg_amcheck", "-h", "/run/pg", "--heapallindexed", "postgres")
        self._stop(home, "fast")
        log = (home / "log").read_text()
        wrong = [line for line in log.splitlines() if re.search(r" (ERROR|PANIC): ", line)]
        assert not wrong, "\n".join(wrong)
        # It was really recovered, from the log, each time.
        assert log.count("redo done") == self.scale


WORKLOADS: dict[str, type[Workload]] = {
    "files": Files,
    "build": Build,
    "sqlite": Sqlite,
    "postgres": Postgres,
}


def timed(name: str, begin: float, more: str = "") -> None:
    """Print how long something took."""
    print(f"{name}: {time.monotonic() - begin:.1f} s {more}", flush=True)
