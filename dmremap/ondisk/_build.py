# SPDX-License-Identifier: GPL-2.0-only
"""Build dmremap.ondisk._format: kernel/dm-remap-format.h through cffi in API mode.

The header is the only place where the format is defined. The declarations below are checked
against it by the C compiler, sizes and offsets included; the logic (checksum, seal, segment
arithmetic, validation) is the very code that the kernel runs.
"""

from pathlib import Path

from cffi import FFI

CDEF = r"""
typedef uint8_t __u8;
typedef uint16_t __le16;
typedef uint32_t __le32;
typedef unsigned long long __le64;

#define BLKRRPART ...
#define DMR_VERSION ...
#define DMR_BLOCK_SIZE ...
#define DMR_BLOCK_SECTORS ...
#define DMR_SB0_BLOCK ...
#define DMR_SB1_BLOCK ...
#define DMR_STANDIN_FIRST ...
#define DMR_STANDIN_LAST ...
#define DMR_HEAD_BLOCKS ...
#define DMR_MAX_SEGMENTS ...
#define DMR_MAX_SLOTS ...
#define DMR_MIN_AREA_BLOCKS ...
#define DMR_OWN_FIRST ...
#define DMR_OWN_LAST ...
#define DMR_NR_OWN ...
#define DMR_OWN_SIZE ...
#define DMR_REFUGE_FIRST ...
#define DMR_REFUGE_STEP ...
#define DMR_NR_REFUGES ...
#define DMR_NR_TAGS ...
#define DMR_NR_SCRATCH ...
#define DMR_TAG_SECTORS ...
#define DMR_EPOCH_MAX ...
#define DMR_NAME_SIZE ...
#define DMR_SERIAL_SIZE ...
#define DMR_ENTRIES ...
#define DMR_GEN_MAX ...
#define DMR_INCOMPAT_SUPERSEDED ...
#define DMR_MAIN_TAGGED ...
#define DMR_CHOSE_CONFIRM ...
#define DMR_CHOSE_MEDIUM ...
#define DMR_CHOSE_RATE ...
#define DMR_SAME_HISTORY ...
#define DMR_OLDER_SPARE ...
#define DMR_PARTED ...
#define DMR_MAGIC_SIZE ...
#define DMR_UNIT_MIN ...
#define DMR_UNIT_MAX ...
#define DMR_NR_STANDINS ...
#define DMR_SEQ_MAX ...
#define DMR_COMPAT_KNOWN ...
#define DMR_RO_COMPAT_KNOWN ...
#define DMR_INCOMPAT_KNOWN ...
#define DMR_TYPE_SUPER ...
#define DMR_TYPE_TABLE ...
#define DMR_TYPE_TAG ...
#define DMR_TYPE_OWN ...
#define DMR_FORMATTING ...
#define DMR_READY ...
#define DMR_FREE ...
#define DMR_MAPPED ...
#define DMR_LOST ...
#define DMR_BAD ...

struct dmr_header {
    __u8 magic[8];
    __le32 crc;
    __le16 type;
    __le16 version;
    __u8 uuid[16];
    __le64 seq;
    __le64 home;
    __u8 zero[16];
};
struct dmr_epoch {
    __le64 number;
    __le64 id;
};
struct dmr_segment {
    __le64 start;
    __le64 blocks;
    __le32 slots;
    __le32 table_blocks;
    __le64 zero;
};
struct dmr_super {
    struct dmr_header h;
    __le64 compat;
    __le64 ro_compat;
    __le64 incompat;
    __le32 state;
    __le32 unit;
    __le64 area_blocks;
    __le32 nr_segments;
    __le32 main_flags;
    __le64 main_sectors;
    __le64 main_offset;
    __le64 data_start;
    __le64 data_sectors;
    __le64 created;
    __u8 main_id_type;
    __u8 main_id_len;
    __u8 zero0[6];
    __u8 main_id[16];
    __u8 main_serial[128];
    __u8 name[128];
    struct dmr_epoch epoch;
    struct dmr_epoch before;
    __u8 predecessor[16];
    struct dmr_epoch predecessor_epoch;
    __u8 content_tag[16];
    struct dmr_segment segment[32];
    __le64 standin[127];
    __le64 spare_serial;
    __u8 chosen_errors;
    __u8 chosen;
    __u8 zero1[2];
    __le32 remap_rate;
    __u8 zero2[1528];
};
struct dmr_entry {
    __le64 unit;
    __le32 state_gen;
    __le32 zero;
};
struct dmr_table {
    struct dmr_header h;
    struct dmr_entry entry[252];
};
struct dmr_tag {
    struct dmr_header h;
    __le64 main_sectors;
    __le64 data_start;
    __le64 spare_start;
    __le64 spare_len;
    __le32 unit;
    __le32 zero0;
    struct dmr_epoch epoch;
    __u8 name[128];
    __u8 zero1[3848];
};
struct dmr_own {
    struct dmr_header h;
    __u8 payload[4032];
};

uint32_t dmr_crc32c_raw(uint32_t crc, const void *p, size_t len);
uint32_t dmr_block_crc(const void *block, uint64_t place);
void dmr_seal(void *block, int type, const uint8_t *uuid, uint64_t seq, uint64_t home,
              uint64_t place);
int dmr_header_ok(const void *block, int type, uint64_t place);
int dmr_same_body(const void *a, const void *b);
uint32_t dmr_segment_slots(uint64_t blocks, uint32_t unit);
uint32_t dmr_table_blocks(uint32_t slots);
uint64_t dmr_tag_block(int copy);
uint64_t dmr_scratch_block(int i);
int dmr_is_refuge(uint64_t block);
int dmr_history(const struct dmr_super *sb, const struct dmr_epoch *tag);
const char *dmr_tag_check(const struct dmr_tag *tag);
int dmr_unit_ok(uint32_t unit);
const char *dmr_super_check(const struct dmr_super *sb);
const char *dmr_table_check(const struct dmr_table *t, uint32_t used, uint64_t units);

uint16_t dmr_h16(uint16_t x);
uint32_t dmr_h32(uint32_t x);
uint64_t dmr_h64(uint64_t x);
int dmr_is_zero(const void *p, size_t len);
"""

SOURCE = r"""
#include <stdint.h>
#include <linux/fs.h>
#include "dm-remap-format.h"

/* Byte order both ways, as functions: the header has macros. */
static uint16_t dmr_h16(uint16_t x) { return dmr_get16(x); }
static uint32_t dmr_h32(uint32_t x) { return dmr_get32(x); }
static uint64_t dmr_h64(uint64_t x) { return dmr_get64(x); }

static int dmr_is_zero(const void *p, size_t len)
{
    const unsigned char *c = p;

    return !len || (!c[0] && !memcmp(c, c + 1, len - 1));
}

/*
 * CRC-32C, eight bytes a step. The tables are filled at the first call, under Python's module
 * lock or not: every thread would write the same values.
 */
static uint32_t crc_table[8][256];

static void crc_fill(void)
{
    uint32_t i, j, crc;

    for (i = 0; i < 256; i++) {
        crc = i;
        for (j = 0; j < 8; j++)
            crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0);
        crc_table[0][i] = crc;
    }
    for (i = 0; i < 256; i++)
        for (j = 1; j < 8; j++)
            crc_table[j][i] = crc_table[j - 1][i] >> 8 ^ crc_table[0][crc_table[j - 1][i] & 255];
}

__u32 dmr_crc32c_raw(__u32 crc, const void *data, size_t len)
{
    const unsigned char *p = data;

    if (!crc_table[7][255])
        crc_fill();
    for (; len >= 8; p += 8, len -= 8) {
        crc ^= p[0] | p[1] << 8 | p[2] << 16 | (uint32_t)p[3] << 24;
        crc = crc_table[7][crc & 255] ^ crc_table[6][crc >> 8 & 255] ^
              crc_table[5][crc >> 16 & 255] ^ crc_table[4][crc >> 24] ^
              crc_table[3][p[4]] ^ crc_table[2][p[5]] ^ crc_table[1][p[6]] ^ crc_table[0][p[7]];
    }
    for (; len; p++, len--)
        crc = crc >> 8 ^ crc_table[0][(crc ^ *p) & 255];
    return crc;
}
"""


def kernel_directory() -> str:
    """Return where the header is: beside the package in a checkout and in an sdist."""
    return str(Path(__file__).resolve().parents[2] / "kernel")


builder = FFI()
builder.cdef(CDEF)
builder.set_source(
    "dmremap.ondisk._format",
    SOURCE,
    include_dirs=[kernel_directory()],
    # __u64 is unsigned long long everywhere then; Linux has it otherwise for some processors, and
    # a pointer to the other type is an error to a compiler of today.
    define_macros=[("__SANE_USERSPACE_TYPES__", None)],
    depends=[f"{kernel_directory()}/dm-remap-format.h"],
)
