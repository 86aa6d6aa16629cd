// SPDX-License-Identifier: GPL-2.0-only
/* What the loader makes of an area in memory: inspect, then load. */
#include "dm-remap.h"

char shim_log[256];
static struct result *now;
int may_format;				/* where there is no set, make one */

struct result {
	int inspect, load;		/* errno, 0 */
	int mapped, lost, bad, free, away, gone;
	int writes;
	u32 place[4096];
	char why[256];
};

__u32 dmr_crc32c_raw(__u32 crc, const void *data, size_t len)
{
	const u8 *p = data;
	int i;

	while (len--)
		for (crc ^= *p++, i = 0; i < 8; i++)
			crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0);
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
			if (bdev->stuck[block])
				return -EIO;
			memcpy(at, vecs[i].page->data, 4096);
			bdev->bad[block] = 0;
			now->place[now->writes++] = block;
		} else {
			if (bdev->bad[block])
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
	u64 area_blocks, int read_only, int accept_stale, struct result *out)
{
	static struct remap r;
	struct gendisk disk = { .fops = &no_id };
	struct block_device spare = { &disk, data, blocks, bad, stuck };
	struct block_device main_disk = { &disk, calloc(256, 4096), main_sectors / 8, NULL, NULL };
	struct dm_dev on_spare = { &spare }, on_main = { &main_disk };
	struct dm_target ti = { .len = main_sectors };
	u8 *none = calloc(main_sectors / 8, 1);
	char *error = "";

	memset(&r, 0, sizeof(r));
	memset(out, 0, sizeof(*out));
	now = out;
	shim_log[0] = 0;
	main_disk.bad = main_disk.stuck = none;
	r.main = &on_main;
	r.spare = &on_spare;
	r.ti = &ti;
	r.spare_len = area_blocks * 8;
	r.unit = unit;
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
	out->inspect = -load_inspect(&r, &error);
	snprintf(out->why, sizeof(out->why), "%s", error ? error : "");
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
		slots_destroy(&r);
		free(r.mblock);
	}
	free(r.page);
	free(r.probe_page);
	free(r.super);
	free(r.tag);
	free(none);
	free(main_disk.data);
	return out->inspect ? out->inspect : out->load;
}
