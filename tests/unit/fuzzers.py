# SPDX-License-Identifier: GPL-2.0-only
"""The fuzzers of the kernel's own loader are built here, also from sources that lack a rule.

kernelshim/loader.c includes the sources of the kernel's loader as they are;
kernelshim/fuzz.c makes areas, damages them, and compares what is loaded with a second opinion that
is written from docs/format.md. What is chosen comes from kernelshim/seeded.c, a generator, or from
kernelshim/guided.c, which is libFuzzer. The first thing that is wrong, and the first report of a
sanitizer, ends either.
"""

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from unit.shim import KERNEL, LOADER, SHIM, empty_headers

SOURCES = ("dm-remap.h", "dm-remap-format.h", *LOADER)

WRONG = re.compile(r"^(seed .* area|the area of this input)|Sanitizer:|runtime error", re.MULTILINE)
"""What a fuzzer says when it has found something."""

SANITIZED = "-fsanitize=address,undefined"
_SANITIZERS = {
    "ASAN_OPTIONS": "detect_leaks=1:abort_on_error=0:exitcode=99",
    "UBSAN_OPTIONS": "print_stacktrace=1",
}

# Each of these rules is taken away once, and that is noticed. What only a cut can tell, such as the
# sequence of a mend, is in the model and in the power cuts.
RULES = {
    "unit": ("dm-remap-format.h", "if (unit >= units)", "if (0)"),
    "state": (
        "dm-remap-format.h",
        '\t\tdefault:\n\t\t\treturn "table block: unknown slot state";\n',
        "",
    ),
    "free": ("dm-remap-format.h", "if (unit || sg >> 8)", "if (0)"),
    "behind": ("dm-remap-format.h", "if (i >= used && (unit || sg))", "if (0)"),
    "segments": (
        "dm-remap-format.h",
        "if (dmr_get64(s->start) != next || blocks > area - next)",
        "if (0)",
    ),
    "slots": ("dm-remap-format.h", "!slots || slots > dmr_segment_slots(blocks, unit) ||", ""),
    "crc": ("dm-remap-format.h", "dmr_get32(h->crc) == dmr_block_crc(block, place)", "1"),
    "place": ("dm-remap-format.h", "where = dmr_put64(place)", "where = dmr_put64(0 * place)"),
    "incompat": ("dm-remap-format.h", "if (dmr_get64(sb->incompat)", "if (0"),
    "version": ("dm-remap-format.h", 'return "metadata is of another version";', ";"),
    "superseded": (
        "dm-remap-load.c",
        "if (dmr_get64(sb->incompat) & DMR_INCOMPAT_SUPERSEDED)",
        "if (0)",
    ),
    "epoch": ("dm-remap-format.h", 'return "superblock: impossible epoch";', ";"),
    "before": (
        "dm-remap-format.h",
        'return "superblock: the epoch before does not fit the present one";',
        ";",
    ),
    "predecessor": (
        "dm-remap-format.h",
        'return "superblock: impossible epoch of the predecessor";',
        ";",
    ),
    "serial": ("dm-remap-format.h", "if (!sb->spare_serial)", "if (0)"),
    "errors": ("dm-remap-format.h", "if (sb->chosen_errors > DMR_CHOSE_MEDIUM)", "if (0)"),
    "errors chosen": (
        "dm-remap-load.c",
        "sb->chosen_errors == DMR_CHOSE_MEDIUM",
        "sb->chosen_errors",
    ),
    "rate chosen": ("dm-remap-load.c", "if (sb->chosen & DMR_CHOSE_RATE)", "if (sb->remap_rate)"),
    "name of a superblock's": (
        "dm-remap-format.h",
        "home && (dmr_is_refuge(DMR_STANDIN_FIRST + i) ||\n\t\t\t     ",
        "home && (",
    ),
    "name of no table": ("dm-remap-format.h", "||\n\t\t\t     !dmr_is_home(sb, home)))", "))"),
    "tag elsewhere": ("dm-remap-identity.c", "||\n\t\t    dmr_get64(found->h.home) != place)", ")"),
    "tag checked": ("dm-remap-identity.c", "r->tag_fault = dmr_tag_check(r->tag);", ";"),
    "tag's epoch": ("dm-remap-format.h", 'return "main\'s tag has an impossible epoch";', ";"),
    "tags contradict": ("dm-remap-identity.c", "!same_tag(found, r->tag)", "0"),
    "tag is the highest": (
        "dm-remap-identity.c",
        "if (dmr_get64(found->h.seq) > dmr_get64(r->tag->h.seq))",
        "if (!r->tag->h.seq)",
    ),
    "no tag": ("dm-remap-identity.c", "if (!r->lost_tags)", "if (0)"),
    "no tag, another disk": (
        "dm-remap-identity.c",
        "if (compare_id(r, sb) != ID_SAME)",
        "if (compare_id(r, sb) == ID_UNKNOWN)",
    ),
    "no tag, something else": ("dm-remap-identity.c", "return search_main(r);", "return NULL;"),
    "no tag, a sector": ("dm-remap-identity.c", "memchr_inv(data, 0, r->unit))", "0)"),
    "tag in data": (
        "dm-remap-identity.c",
        "memcmp(r->tag->h.uuid, sb->content_tag,\n\t\t\t\t      sizeof(sb->content_tag)))",
        "0)",
    ),
    "older spare": ("dm-remap-format.h", "return DMR_OLDER_SPARE;", "return DMR_SAME_HISTORY;"),
    "parted": ("dm-remap-format.h", "if (then == now)\n", "if (0)\n"),
    "parted before": ("dm-remap-format.h", "if (then + 1 == now)", "if (0)"),
    "area": (
        "dm-remap-load.c",
        "if (area < dmr_get64(sb->area_blocks))",
        "if (0)",
    ),
    "uuid": ("dm-remap-load.c", "memcmp(t->h.uuid, &r->uuid, sizeof(r->uuid)) ||", ""),
    "home": ("dm-remap-load.c", "||\n\t    dmr_get64(t->h.home) != home)", ")"),
    "ambiguous": ("dm-remap-load.c", "if (f[0].ambiguous)", "if (0)"),
    "unreadable": ("dm-remap-load.c", "if (l->unreadable > 1)", "if (0)"),
    "lone": ("dm-remap-load.c", "if (known > (!mb && l->unreadable))", "if (known)"),
    "newer": ("dm-remap-load.c", "f->seq >= f->torn && !f->unseen;", "!f->unseen;"),
    "unseen": ("dm-remap-load.c", "f->seq >= f->torn && !f->unseen;", "f->seq >= f->torn;"),
    "torn": ("dm-remap-load.c", "f->torn = max(f->torn, torn);", ";"),
    "torn and not its own": (
        "dm-remap-load.c",
        "else if (torn || (its_own && !read_standin(r, place, name)))",
        "else if (its_own && !read_standin(r, place, name))",
    ),
    "named": (
        "dm-remap-load.c",
        "u64 name = dmr_get64(r->super->standin[i]);",
        "u64 name = l->head.standin[i].home + 1 ? l->head.standin[i].home : 0;",
    ),
    "refuge": (
        "dm-remap-load.c",
        "if (home != block && !dmr_is_refuge(block))",
        "if (home != block && !is_standin(block))",
    ),
    "name first": ("dm-remap-area.c", "if (mb && name_standin(r, place, home))", "if (0)"),
    "torn superblock": ("dm-remap-load.c", "f->torn = max(f->torn, seq);", ";"),
    "torn another's": (
        "dm-remap-load.c",
        "seq > DMR_SEQ_MAX || memcmp(hdr->uuid, &r->uuid, sizeof(r->uuid))",
        "seq > DMR_SEQ_MAX",
    ),
    "torn blank": ("dm-remap-load.c", "if (!memchr_inv(hdr, 0, SECTOR_SIZE))", "if (0)"),
    "twice": ("dm-remap-load.c", "if (r->slot[old].info >> 8 != new->info >> 8)", "if (1)"),
    "relinked": ("dm-remap-load.c", "if (first < l->linked)", "if (0)"),
    "linked twice": (
        "dm-remap-load.c",
        "if (dmr_any_entry(r, slot->unit, 0) == DMR_NO_SLOT)",
        "if (1)",
    ),
    "losers": ("dm-remap-load.c", "ret = load_losers(r);", "ret = 0;"),
    "extension": ("dm-remap-load.c", "!memchr_inv(t->entry, 0, sizeof(t->entry))", "1"),
    "standins": (
        "dm-remap-load.c",
        "\t\tstandin_torn(s->r, h, i, hdr);",
        "\t\t;",
    ),
}


def copy_kernel(where: Path, name: str, old: str, new: str) -> Path:
    """Return a copy of the loader's sources, in one of which something is replaced."""
    copy = where / "kernel"
    copy.mkdir()
    for source in SOURCES:
        (copy / source).write_text((KERNEL / source).read_text())
    text = (copy / name).read_text()
    assert text.count(old) == 1, "what is replaced is to be found in the sources, once"
    (copy / name).write_text(text.replace(old, new))
    return copy


def run(argv: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a fuzzer, however it ends."""
    return subprocess.run(
        argv,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        env={**os.environ, **_SANITIZERS},
    )


@dataclass
class Builder:
    """Compiles a fuzzer for a loader, and all but the loader once."""

    name: str
    """Where what is tried comes from: `seeded` or `guided`."""
    where: Path
    """For what is compiled once."""
    compiler: str = "cc"
    loader_options: tuple[str, ...] = ()
    link_options: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Compile what needs to know nothing of the loader's rules."""
        self.others = [self._compile(name, KERNEL, self.where) for name in ("fuzz", self.name)]

    def build(self, where: Path, kernel: Path = KERNEL, *options: str) -> Path:
        """Return the program with a loader."""
        loader = self._compile("loader", kernel, where, *self.loader_options, *options)
        program = where / self.name
        objects = map(str, (loader, *self.others))
        _run([self.compiler, SANITIZED, *self.link_options, "-o", str(program), *objects])
        return program

    def _compile(self, name: str, kernel: Path, where: Path, *options: str) -> Path:
        empty_headers(where, *(kernel / source for source in SOURCES[:1] + SOURCES[2:]))
        flags = ["-std=gnu11", "-g", "-O2", "-Wall", "-Wextra", "-Werror"]
        flags += [SANITIZED, "-fno-sanitize-recover=all", *options]
        flags += [f"-I{path}" for path in (SHIM, where, kernel)]
        target = where / f"{name}.o"
        _run([self.compiler, *flags, "-c", "-o", str(target), str(SHIM / f"{name}.c")])
        return target


def seeded(where: Path) -> Builder:
    """Return what builds the generator's fuzzer."""
    return Builder("seeded", where)


def guided(where: Path) -> Builder:
    """Return what builds libFuzzer's. It is guided by what the loader does, alone."""
    return Builder("guided", where, "clang", ("-fsanitize=fuzzer-no-link",), ("-fsanitize=fuzzer",))


def _run(argv: list[str]) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
