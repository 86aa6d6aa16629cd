# SPDX-License-Identifier: GPL-2.0-only
"""Hostile input for tests/guest/hostile.py, made by Hypothesis, and what has to come of it.

Made here and not in the guest, where Hypothesis takes longer to start than its examples to run.
What has to come of a line or a message is derived from docs/interface.md and from how
device-mapper splits words and the kernel reads numbers, not from the target's code.
"""

from __future__ import annotations

import re
from random import Random
from typing import TYPE_CHECKING, Any, TypeVar

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hypothesis.strategies import SearchStrategy

T = TypeVar("T")
Case = dict[str, Any]

SIZE = 4096
"""Sectors of every disk that a line is about."""
SMALLEST = 2072
LENGTH = 2048
"""Sectors of the device that messages are sent to."""
SPACES = b"\t\n\v\f\r \xa0"
"""What the kernel's isspace() takes for white space."""
ANY = ["EINVAL", "ENODATA", "EBUSY", "EFBIG", "EROFS"]
NO_DEVICE = [*ANY, "ENOENT", "ENOTBLK", "ENXIO", "ENODEV", "EACCES", "ENOTDIR", "ENAMETOOLONG"]
"""What opening of a device may fail with, beside the target's own."""


def made(strategy: SearchStrategy[T], number: int, count: int) -> list[T]:
    """Return examples, always the same for a seed."""
    found: list[T] = []

    @seed(number)
    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def collect(example: T) -> None:
        found.append(example)

    collect()
    return found[:count]


def mixed(good: SearchStrategy[T], bad: SearchStrategy[T], number: int, count: int) -> list[T]:
    """Return as many examples of the one as of the other."""
    half = count // 2
    both = made(good, number, half) + made(bad, number, count - half)
    Random(number).shuffle(both)
    return both


# How the kernel reads words and numbers


def split(text: bytes) -> list[bytes]:
    r"""Split a line as device-mapper does.

    >>> split(b"a\\ b  c\\\\ \xa0d")
    [b'a b', b'c\\', b'd']
    """
    words: list[bytes] = []
    word, at = None, 0
    text = text.partition(b"\0")[0]
    while at < len(text):
        if text[at] in SPACES:
            words += [] if word is None else [word]
            word = None
        else:
            if text[at] == ord("\\") and at + 1 < len(text):
                at += 1
            word = (word or b"") + text[at : at + 1]
        at += 1
    return words if word is None else [*words, word]


def value_of(digits: bytes) -> int:
    """Return a decimal number of any length; int() takes no more than 4,300 digits."""
    value = 0
    for start in range(0, len(digits), 4000):
        part = digits[start : start + 4000]
        value = value * 10 ** len(part) + int(part)
    return value


def number(word: bytes, limit: int = 1 << 64) -> int | None:
    """Read a decimal number as kstrtou64() does, with its plus and its newline."""
    match = re.fullmatch(rb"\+?([0-9]+)\n?", word)
    value = value_of(match[1]) if match else limit
    return value if value < limit else None


def scanned(word: bytes) -> int | None:
    """Read a number as sscanf("%u%c") does, which lets it wrap."""
    match = re.fullmatch(rb"[\t\n\v\f\r \xa0]*([0-9]+)", word)
    return value_of(match[1]) % (1 << 64) % (1 << 32) if match else None


# Words

NUMBERS = [
    *(b"0", b"1", b"2", b"7", b"8", b"-1", b"-8", b"+8", b"08", b"0x8", b"8.0", b"1e3", b"8s"),
    *(b"2047", b"2048", b"2071", b"2072", b"4088", b"4096", b"4097", b"16777216", b"4294967295"),
    *(b"4294967296", b"4294967298", b"9223372036854775807", b"18014398509481984"),
    *(b"18014398509481985", b"18446744073709551608", b"18446744073709551615"),
    *(b"18446744073709551616", b"9" * 30, b"0" * 300 + b"8", b"\xd9\xa3", b"\\8", b"8\\\n"),
]
junk = st.binary(max_size=24) | st.text(max_size=12).map(str.encode)
long_word = st.builds(
    lambda part, times: part * times, st.sampled_from([b"x", b"\xff", b"%s%n", b"8"]),
    st.sampled_from([127, 128, 129, 1000, 5000, 20000]),
)  # fmt: skip
odd = junk | long_word | st.sampled_from(
    [b"", b"\\", b"%p%n%s", b"../../etc", b"x\\\nBUG: made up", b"\x1b[31m", b"\xa0", b"a\0b"]
)  # fmt: skip
count = st.sampled_from(NUMBERS) | st.integers(0, SIZE).map(lambda n: b"%d" % n)


def varied(word: bytes) -> SearchStrategy[bytes]:
    """Return a word in another case, with something behind it, or another word."""
    return (
        st.just(word)
        | st.sampled_from([word.upper(), word.title(), word[:-1], word + b"x", b"\\" + word])
        | odd
    )


def joined(words: SearchStrategy[Sequence[bytes]]) -> SearchStrategy[bytes]:
    """Return a line of these words."""
    gap = st.sampled_from([b" ", b" ", b" ", b"  ", b"\t", b"\n", b"\xa0", b" \v "])
    return st.builds(lambda several, between: between.join(several), words, gap)


def spoiled(words: SearchStrategy[Sequence[bytes]]) -> SearchStrategy[Sequence[bytes]]:
    """Return words of which one is missing, is there twice or is something else."""

    def spoil(several: Sequence[bytes], at: int, how: int, other: bytes) -> Sequence[bytes]:
        at %= len(several) + 1
        middle = [[], [other], list(several[at : at + 1]) * 2][how]
        return [*several[:at], *middle, *several[at + 1 :]]

    return st.builds(spoil, words, st.integers(0, 12), st.integers(0, 2), count | odd)


# Messages

inside = st.integers(0, LENGTH - 1).map(lambda n: b"%d" % n)
some = st.sampled_from([b"1", b"2", b"3", b"17", b"+5", b"0004", b"6\\\n"])
good_message = st.one_of(
    st.tuples(st.sampled_from([b"list", b"LIST", b"pending", b"scrub"]), inside | count, some),
    st.tuples(st.just(b"breaker"), st.sampled_from([b"open", b"close", b"OPEN", b"Close"])),
    st.tuples(st.just(b"rename"), st.from_regex(rb"\A[a-zA-Z0-9%.:_-]{1,20}\Z")),
    st.tuples(st.sampled_from([b"remap", b"ReMap"]), inside, some),
    st.tuples(st.sampled_from([b"stop", b"STOP", b"retire", b"Retire"])),
    st.tuples(st.just(b"remap"), inside, some, st.sampled_from([b"lost", b"LOST"])),
)
odd_message = st.one_of(
    st.tuples(st.sampled_from([b"list", b"pending", b"scrub", b"remap"]), count, count),
    st.tuples(st.just(b"rename"), long_word | odd),
    st.tuples(st.just(b"breaker"), varied(b"open")),
    st.tuples(st.just(b"remap"), count, count, varied(b"lost")),
)
odd_text = st.one_of(
    joined(odd_message),
    joined(spoiled(good_message)),
    joined(spoiled(spoiled(good_message))),
    joined(st.lists(varied(b"list") | count | odd, max_size=6)),
    st.binary(max_size=60),
).filter(lambda text: not text.lstrip(SPACES).startswith((b"@", b"\\@")))
"""Words with an @ are for device-mapper itself."""
at_sector = st.sampled_from([0, 0, 1, LENGTH - 1])
outside = st.sampled_from([0, 0, 0, LENGTH, 1 << 40, (1 << 64) - 1])
rooms = st.sampled_from([16384] * 6 + [305, 400, 700, 1000])
STATES = ("running", "suspended", "repair", "failed", "ro", "ro-suspended", "retired")
PINNED = [
    b"x" * 5000,
    b"x\\\nBUG: made up",
    b"rename x\\\nBUG: made up",
    b"LIST 0 1 \\",
    b"remap 0 1 lost more",
    b"breaker open now",
    b"list 0",
    b"stop 0",
    b"retire 0",
    b"list 0 1 2",
    b"remap 0 0",
    b"remap 2047 2",
    b"remap 18446744073709551615 1",
    b"remap 1 18446744073709551615",
    b"pending 18446744073709551615 10",
    b"list 18446744073709551615 4294967295",
    b"scrub 0 4294967295",
    b"scrub 18446744073709551615 4294967295",
]
"""Sent whatever the seed is, and first, while every line is logged."""
EXPECTED = {
    b"list": "list <from slot> <max>",
    b"pending": "pending <from sector> <max>",
    b"breaker": "breaker open|close",
    b"scrub": "scrub <from copy> <max>",
    b"rename": "rename <name>, 1 to 127 printable ASCII characters without '/'",
    b"remap": "remap <sector> <count> [lost], whole blocks of this target",
    b"stop": "stop",
    b"retire": "retire",
}
QUIET = (b"remap", b"stop", b"retire")
WRITING = (b"rename", b"scrub", *QUIET)


def _well_formed(name: bytes, arguments: list[bytes]) -> bool:
    """Say whether a message is one of those in docs/interface.md."""
    match name, arguments:
        case b"list" | b"pending" | b"scrub", [start, most]:
            return number(start) is not None and bool(number(most, 1 << 32))
        case b"stop" | b"retire", []:
            return True
        case b"breaker", [how]:
            return how.lower() in (b"open", b"close")
        case b"rename", [new]:
            return 0 < len(new) < 128 and all(32 <= c < 127 and c != ord("/") for c in new)
        case b"remap", [start, nr, *lost]:
            first, units = number(start), number(nr)
            if first is None or not units or len(lost) > 1:
                return False
            return first + units <= LENGTH and (not lost or lost[0].lower() == b"lost")
    return False


def message_outcome(state: str, sector: int, text: bytes) -> tuple[str, str]:
    """Return the errno that a message ends with, or OK, and what the log says then."""
    words = split(text)
    if not words or sector >= LENGTH:
        return "EINVAL", ""
    name = words[0].lower()
    if not _well_formed(name, words[1:]):
        every = "list, pending, breaker, rename, scrub, remap, stop or retire"
        return "EINVAL", EXPECTED.get(name, every)
    if name in (b"rename", b"scrub") and state == "failed":
        return "EBUSY", "the set was never started"
    if state == "retired":
        # It may be repeated, and nothing else is written any more.
        return ("EROFS", "the set is in mode ro") if name in WRITING[:-1] else ("OK", "")
    if name in QUIET and "suspended" not in state:
        return "EBUSY", "suspend the device first"
    if name in WRITING and state.startswith("ro"):
        return "EROFS", "the set is in mode ro"
    return "OK", ""


def messages(seed_: int, count_: int) -> list[Case]:
    """Return messages for devices in every state, in groups that share a device."""
    groups = []
    for place, state in enumerate(STATES):
        cases = []
        some_made = mixed(
            st.tuples(at_sector, joined(good_message), rooms),
            st.tuples(at_sector | outside, odd_text, rooms),
            seed_ * 64 + place,
            count_,
        )
        for sector, text, size in [*((0, text, 16384) for text in PINNED), *some_made]:
            errno, log = message_outcome(state, sector, text)
            if (state, errno) == ("suspended", "OK") and split(text)[0].lower() == b"retire":
                continue  # it would be another state
            cases.append(
                {
                    "sector": sector,
                    "text": text.decode("latin-1"),
                    "room": size,
                    "errno": errno,
                    "log": log,
                }
            )
        groups.append({"state": state, "cases": cases})
    return groups


# Table lines

device = st.sampled_from([b"{main}", b"{main#}"])
spare = st.sampled_from([b"{spare}", b"{spare#}"])
wrong_device = st.sampled_from(
    [b"/dev/nothing", b"/dev/null", b"/", b"0:0", b"999:999", b"-1:3", b"7", b"{spare}", b"{main}"]
) | odd.filter(lambda word: b"{" not in word)
option = st.one_of(
    st.tuples(st.just(b"main_start"), st.sampled_from([b"0", b"0", b"1", b"2000"])),
    st.tuples(st.just(b"uuid"), st.just(b"{uuid}")),
    st.tuples(st.just(b"errors"), st.sampled_from([b"confirm", b"medium", b"MEDIUM"])),
    st.tuples(st.just(b"remap_rate"), some),
    st.just((b"accept_stale",)),
)
odd_option = st.one_of(
    st.tuples(st.just(b"main_start"), count),
    st.tuples(st.just(b"uuid"), st.sampled_from([b"{uuid}0", b"{uuid", b"0" * 36]) | odd),
    st.tuples(st.just(b"errors"), varied(b"medium")),
    st.tuples(st.just(b"remap_rate"), count),
    st.tuples(varied(b"remap_rate"), some),
)
odd_options = st.lists(option | odd_option, max_size=4).map(
    lambda several: [w for one in several for w in one]
)
options = st.lists(option, max_size=4).map(lambda several: [w for one in several for w in one])
counted = options.map(lambda several: [b"%d" % len(several), *several] if several else [])
place_and_size = st.sampled_from(
    [(b"0", b"4096")] * 5
    + [(b"0", b"2072"), (b"0", b"2073"), (b"8", b"4088"), (b"2024", b"2072"), (b"2024", b"2080")]
)
good_line = st.builds(
    lambda first, second, area, rest: [first, second, *area, *rest],
    device, spare, place_and_size, counted,
)  # fmt: skip
odd_line = st.builds(
    lambda first, second, start, size, rest: [first, second, start, size, *rest],
    device | wrong_device, spare | wrong_device, st.just(b"0") | count, st.just(b"4096") | count,
    counted | options | odd_options.map(lambda several: [b"%d" % len(several), *several]),
)  # fmt: skip
odd_line_text = st.one_of(
    joined(spoiled(good_line)),
    joined(odd_line),
    joined(st.lists(device | spare | count | odd, max_size=8)),
    st.binary(max_size=80),
)
size_of_set = st.sampled_from([SIZE, SIZE, SIZE, 1, 2000, SIZE - 1])
length = st.sampled_from([SIZE + 1, 0, 1 << 54, (1 << 64) - 1])
SETS = ("blank", "set", "running", "foreign")


def _options(words: list[bytes]) -> dict[bytes, bytes] | None:
    """Return the options of a line, nothing if they are malformed."""
    found: dict[bytes, bytes] = {}
    if not words:
        return found
    many = scanned(words[0])
    if many is None or many > 9 or many != len(words) - 1:
        return None
    rest = iter(words[1:])
    for word in rest:
        name = word.lower()
        value = b"" if name == b"accept_stale" else next(rest, None)
        if value is None or not _option_ok(name, value):
            return None
        found[name] = value
    return found


def _option_ok(name: bytes, value: bytes) -> bool:
    match name:
        case b"main_start":
            return number(value, (1 << 54) + 1) is not None
        case b"uuid":
            hexadecimal = rb"[0-9a-fA-F]"
            form = b"-".join(b"%s{%d}" % (hexadecimal, n) for n in (8, 4, 4, 4, 12))
            return value == b"{uuid}" or re.fullmatch(form, value) is not None
        case b"errors":
            return value.lower() in (b"confirm", b"medium")
        case b"remap_rate":
            return number(value, 1 << 32) is not None
    return name == b"accept_stale"


def line_outcome(where: str, length_: int, text: bytes, *, readonly: bool) -> list[str]:
    """Return the errnos that a load of a table may end with, and OK if it may succeed."""
    words = split(text)
    if not length_ or len(words) < 4:
        return ["EINVAL"]
    start, size = (number(word, (1 << 54) + 1) for word in words[2:4])
    given_ = _options(words[4:])
    if start is None or size is None or given_ is None:
        return ["EINVAL"]
    if b"accept_stale" in given_ and not readonly:
        return ["EINVAL"]
    if not all(re.fullmatch(rb"\{(main|spare)#?\}", word) for word in words[:2]):
        return NO_DEVICE
    main, other = (word.strip(b"{#}") for word in words[:2])
    data = number(given_.get(b"main_start", b"0"))
    assert data is not None
    if data + length_ > SIZE or start % 8 or start + size > SIZE or size < SMALLEST:
        return ["EINVAL"]
    if where == "running" or where == "foreign" or (main, other) != (b"main", b"spare"):
        # In use; not blank; main holds data; main and spare overlap.
        return ANY
    if where == "blank":
        return ["ENODATA"] if b"uuid" in given_ else ["EROFS"] if readonly else ["OK"]
    ours = given_.get(b"uuid", b"{uuid}") == b"{uuid}"
    if start:
        return ANY  # what is at the head of that area is not a superblock
    if not ours:
        return ["ENODATA"]
    return ["OK"] if size // 8 == SIZE // 8 and not data else ["EINVAL"]


def lines(seed_: int, count_: int) -> list[Case]:
    """Return table lines for disks that hold different things."""
    cases = []
    flags = (st.sampled_from([False, False, True]), st.booleans())
    for where, long, text, readonly, resume in mixed(
        st.tuples(st.sampled_from(["blank", "set"]), size_of_set, joined(good_line), *flags),
        st.tuples(st.sampled_from(SETS), size_of_set | length, odd_line_text, *flags),
        seed_,
        count_,
    ):
        outcome = line_outcome(where, long, text, readonly=readonly)
        cases.append(
            {
                "where": where,
                "length": long,
                "text": text.decode("latin-1"),
                "readonly": readonly,
                "resume": resume,
                "errnos": outcome,
            }
        )
    return cases


def accesses(seed_: int, count_: int) -> list[Case]:
    """Return accesses to the files in sysfs."""
    how = st.sampled_from(["read", "read", "write", "truncate", "map", "chmod", "unlink", "exec"])
    where = st.sampled_from([0, 1, 2, 100, 4095, 4096, 1 << 20, 1 << 62])
    size = st.sampled_from([0, 1, 2, 37, 4096, 65536])
    return [
        {"file": file, "how": how_, "offset": offset, "size": size_}
        for file, how_, offset, size_ in made(
            st.tuples(st.integers(0, 20), how, where, size), seed_, count_
        )
    ]
