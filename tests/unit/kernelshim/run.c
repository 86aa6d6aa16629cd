// SPDX-License-Identifier: GPL-2.0-only
/* What the loader makes of an area in memory: inspect, then load. */
#include "dm-remap.h"

char shim_log[256];
static struct result *now;
int may_format;				/* where there is no set, make one */
int errors_word, rate_word = -1;	/* of the table line; 0 and -1: none */
static u64 found_epoch;			/* of the set */

struct result {
	int inspect, load;		/* errno, 0 */
	int format;			/* no set is there, and it would make one */
	int mapped, lost, bad, free, away, gone;
	int writes;
	int raised;			/* superblocks that were to begin an epoch */
	int no_raise;			/* none could, for the superblocks are not equal */
	int medium, rate;		/* what counts of what may be chosen */
	u32 place[4096];
	char why[256];
	struct dmr_super super;		/* that was chosen, all zeroes if inspect failed */
	struct dmr_epoch shown;		/* by status, when it is loaded */
};

__u32 dmr_crc32c_raw(__u32 crc, const void *data, size_t len)
{
	static u32 table[256];
	const u8 *p = data;
	u32 i;
	int bit;

	for (i = 0; i < 256 && !table[255]; i++)
		for (table[i] = i, bit = 0; bit < 8; bit++)
			table[i] = table[i] >> 1 ^ (table[i] & 1 ? 0x82f63b78u : 0);
	while (len--)
		crc = crc >> 8 ^ table[(crc ^ *p++) & 0xff];
	return crc;
}

int shim_io(struct block_device *bdev, sector_t sector, struct bio_vec *vecs, unsigned int n,
	    blk_opf_t opf)
{
	u64 block = sector / 8;
	unsigned int i;

	for (i = 0; i < n; i++, block++) {
		u8 *at = bdev->data + block * 4096;

		if (block >= bdev->blocks)
			return -EIO;
		if ((opf & REQ_OP_MASK) == REQ_OP_WRITE) {
			const struct dmr_super *sb = (void *)vecs[i].page->data;

			/*
			 * The end of a load, which only the kernel does: left out, so
			 * that the rest of it can be compared.
			 */
			if (dmr_get16(sb->h.type) == DMR_TYPE_SUPER &&
			    dmr_get64(sb->epoch.number) > found_epoch) {
				now->raised++;
				continue;
			}
			if (bdev->stuck[block])
				return -EIO;
			memcpy(at, vecs[i].page->data, 4096);
			bdev->bad[block] = 0;
			now->place[now->writes++] = block;
		} else {
			if (bdev->bad && bdev->bad[block])
				return -EIO;
			memcpy(vecs[i].page->data, at, 4096);
		}
	}
	return 0;
}

#include "others.h"

static const struct block_device_operations no_id;

/*
 * The table line names the set by its uuid, and has the length of the area that it
 * was made with.  Main is as large as the superblock says, blank, without a tag.
 */
int run(u8 *data, u64 blocks, u8 *bad, u8 *stuck, const u8 *uuid, u32 unit, u64 main_sectors,
	u64 data_sectors, u64 area_blocks, int read_only, int accept_stale, struct result *out)
{
	static u8 blank[256 * 4096];
	static struct remap r;
	struct gendisk disk = { .fops = &no_id };
	struct block_device spare = { &disk, data, blocks, bad, stuck };
	struct block_device main_disk = { &disk, blank, main_sectors / 8, NULL, NULL };
	struct dm_dev on_spare = { &spare }, on_main = { &main_disk };
	struct dm_target ti = { .len = data_sectors };
	char *error = "";

	memset(&r, 0, sizeof(r));
	memset(out, 0, sizeof(*out));
	now = out;
	shim_log[0] = 0;
	r.main = &on_main;
	r.spare = &on_spare;
	r.ti = &ti;
	r.spare_len = area_blocks * 8;
	r.unit = unit;
	r.piece = 1;
	r.has_errors = errors_word;
	r.errors_medium = errors_word == DMR_CHOSE_MEDIUM;
	r.has_rate = rate_word >= 0;
	r.breaker.rate = r.has_rate ? rate_word : 0;
	r.unit_shift = unit == 512 ? 0 : unit == 1024 ? 1 : unit == 2048 ? 2 : 3;
	r.read_only = read_only;
	r.accept_stale = accept_stale;
	r.has_uuid = uuid != NULL;
	if (uuid)
		memcpy(&r.uuid, uuid, 16);
	r.mode = DMR_MODE_RW;
	r.page = alloc_page(0);
	r.probe_page = alloc_page(0);
	r.super = calloc(1, sizeof(*r.super));
	r.tag = calloc(1, sizeof(*r.tag));
	r.tag_page = alloc_page(0);
	out->inspect = -load_inspect(&r, &error);
	snprintf(out->why, sizeof(out->why), "%s", error ? error : "");
	out->format = !out->inspect && r.format;
	if (!out->inspect && !out->format)
		out->super = *r.super;
	found_epoch = out->format ? 1 : dmr_get64(r.super->epoch.number);
	out->medium = r.errors_medium;
	out->rate = r.breaker.rate;
	if (!out->inspect && (!r.format || may_format)) {
		r.mblock = calloc(r.nr_mblocks, sizeof(*r.mblock));
		slots_create(&r);
		out->load = -load_set(&r);
		snprintf(out->why, sizeof(out->why), "%s", shim_log);
		out->mapped = r.nr_mapped.v;
		out->lost = r.nr_lost.v;
		out->bad = r.nr_bad.v;
		out->free = r.nr_free.v;
		out->away = r.nr_away.v;
		out->gone = r.nr_gone;
		out->no_raise = r.no_raise;
		out->medium = r.errors_medium;
		out->rate = r.breaker.rate;
		out->shown = r.super->epoch;
		slots_destroy(&r);
		free(r.mblock);
	}
	free(r.page);
	free(r.probe_page);
	free(r.super);
	free(r.tag);
	free(r.tag_page);
	return out->inspect ? out->inspect : out->load;
}
