/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * As much of Linux as the loader needs (area, identity, commit, load and slots) to
 * run in a process, with a disk in memory: one thread, no interrupts, no time.
 */
#ifndef SHIM_H
#define SHIM_H
#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <linux/types.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef unsigned long long u64;
typedef unsigned long long sector_t;
typedef unsigned int blk_opf_t, gfp_t, fmode_t;
typedef u8 blk_status_t;
typedef int status_type_t;
typedef struct { u8 b[16]; } uuid_t;
typedef struct { int v; } atomic_t;
typedef struct { int64_t v; } atomic64_t;
typedef struct { int x; } spinlock_t;

#define U32_MAX			UINT32_MAX
#define UUID_STRING_LEN		36
#define DM_NAME_LEN		128
#define U64_MAX			(~0ull)
#define PAGE_SIZE		4096
#define SECTOR_SIZE		512
#define HZ			100
#define jiffies			0ul
#define GFP_KERNEL		0
#define GOLDEN_RATIO_64		0x61C8864680B583EBull
#define BITS_PER_LONG		64
#define DECLARE_BITMAP(n, b)	unsigned long n[((b) + 63) / 64]
#define ____cacheline_aligned_in_smp
#define BIT(n)			(1ul << (n))
#define __ffs(x)		((unsigned int)__builtin_ctzl(x))
#define hweight_long(x)		((unsigned long)__builtin_popcountl(x))
#define ARRAY_SIZE(a)		(sizeof(a) / sizeof((a)[0]))
#define READ_ONCE(x)		(x)
#define data_race(x)		(x)
#define WRITE_ONCE(x, v)	((x) = (v))
#define smp_load_acquire(p)	(*(p))
#define smp_store_release(p, v)	(*(p) = (v))
#define time_after(a, b)	((long)((b) - (a)) < 0)
#define time_after_eq(a, b)	((long)((b) - (a)) <= 0)
#define min(a, b)		((a) < (b) ? (a) : (b))
#define max(a, b)		((a) > (b) ? (a) : (b))
#define min_t(t, a, b)		((t)(a) < (t)(b) ? (t)(a) : (t)(b))
#define swap(a, b)		do { __typeof__(a) t_ = (a); (a) = (b); (b) = t_; } while (0)
#define container_of(p, t, m)	((t *)((char *)(p) - offsetof(t, m)))
#define round_up(x, n)		(((x) + (n) - 1) / (n) * (n))
#define round_down(x, n)	((x) / (n) * (n))
#define mult_frac(x, n, d)	((x) / (d) * (n) + (x) % (d) * (n) / (d))
#define lockdep_assert_held(x)	((void)(x))
#define cond_resched()		((void)0)
#define fatal_signal_pending(c)	0
#define current			NULL
#define noinline
#define unlikely(x)		(x)
#define likely(x)		(x)
#define EXPORT_SYMBOL_GPL(x)

struct list_head { struct list_head *next, *prev; };
#define LIST_HEAD(name)		struct list_head name = { &(name), &(name) }
#define list_entry(p, t, m)	container_of(p, t, m)
#define list_for_each_entry(e, h, m)						\
	for (e = list_entry((h)->next, __typeof__(*e), m); &e->m != (h);		\
	     e = list_entry(e->m.next, __typeof__(*e), m))
#define list_for_each_entry_safe(e, n, h, m)					\
	for (e = list_entry((h)->next, __typeof__(*e), m),			\
	     n = list_entry(e->m.next, __typeof__(*e), m); &e->m != (h);		\
	     e = n, n = list_entry(n->m.next, __typeof__(*n), m))
static inline void list_add(struct list_head *e, struct list_head *h)
{
	e->next = h->next;
	e->prev = h;
	h->next->prev = e;
	h->next = e;
}
static inline void list_add_tail(struct list_head *e, struct list_head *h) { list_add(e, h->prev); }
static inline void list_del(struct list_head *e)
{
	e->prev->next = e->next;
	e->next->prev = e->prev;
}
/* Nothing is queued for the commit work here. */
static inline void list_splice_init(struct list_head *from, struct list_head *to)
{
	(void)from; (void)to;
}
struct mutex { int x; };
#define DEFINE_MUTEX(name)	struct mutex name
#define mutex_lock(m)		((void)(m))
#define mutex_lock_killable(m)	((void)(m), 0)
#define mutex_unlock(m)		((void)(m))
#define spin_lock_irq(l)	((void)(l))
#define spin_unlock_irq(l)	((void)(l))
#define spin_lock_irqsave(l, f)		((void)(l), (void)((f) = 0))
#define spin_unlock_irqrestore(l, f)	((void)(l), (void)(f))
struct completion { int x; };
struct work_struct { int x; };
struct delayed_work { struct work_struct work; };
struct workqueue_struct;
#define system_freezable_wq	((struct workqueue_struct *)0)
#define INIT_DELAYED_WORK(w, f)		((void)(w), (void)(f))
#define to_delayed_work(w)		container_of(w, struct delayed_work, work)
#define queue_delayed_work(q, w, t)	((void)(q), (void)(w), (void)(t))
#define cancel_delayed_work(w)		((void)(w))
#define work_busy(w)			((void)(w), 0)
#define schedule_timeout_idle(t)	((void)(t), 0)
#define mod_delayed_work(q, w, t)	((void)(q), (void)(w), (void)(t))
#define cancel_delayed_work_sync(w)	((void)(w))
static inline void queue_work(struct workqueue_struct *q, struct work_struct *w) { (void)q; (void)w; }
struct attribute { int x; };
struct attribute_group { int x; };
struct device_attribute { struct attribute attr; };
struct bio_set { int x; };
struct bvec_iter { sector_t bi_sector; unsigned int bi_size; };
struct page { u8 data[PAGE_SIZE]; };
struct bio_vec { struct page *page; unsigned int len; };
enum blk_unique_id { BLK_UID_T10 = 1, BLK_UID_EUI64 = 2, BLK_UID_NAA = 3 };
struct gendisk;
struct block_device_operations {
	int (*get_unique_id)(struct gendisk *disk, u8 id[16], enum blk_unique_id type);
};
struct gendisk { int major; const struct block_device_operations *fops; };
struct block_device { struct gendisk *bd_disk; u8 *data; u64 blocks; u8 *bad; u8 *stuck; };
struct dm_dev { struct block_device *bdev; };
struct dm_table { int x; };
struct mapped_device { int x; };
struct dm_target { struct dm_table *table; sector_t len, begin; char *error; void *private; };
struct bio {
	struct block_device *bdev;
	struct bio_vec *vecs;
	unsigned int n;
	blk_opf_t opf;
	struct bvec_iter bi_iter;
	blk_status_t bi_status;
	void *bi_private;
	void (*bi_end_io)(struct bio *bio);
};

#define SECTOR_SHIFT		9
#define BLK_STS_OK		0
#define BLK_STS_IOERR		10
#define BLK_STS_MEDIUM		7
#define BLK_STS_TARGET		5
#define BLK_STS_NOTSUPP		1
#define BLK_STS_TRANSPORT	4
#define BLK_STS_TIMEOUT		2
#define BLK_STS_OFFLINE		16
#define REQ_OP_MASK		0xff
#define REQ_OP_READ		0
#define REQ_OP_WRITE		1
#define REQ_OP_WRITE_ZEROES	9
#define REQ_META		0x100
#define REQ_SYNC		0x200
#define REQ_FUA			0x400
#define BLK_OPEN_WRITE		1

int shim_io(struct block_device *bdev, sector_t sector, struct bio_vec *vecs, unsigned int n,
	    blk_opf_t opf);
extern char shim_log[256];
#define shim_say(f, ...)	snprintf(shim_log, sizeof(shim_log), f, ##__VA_ARGS__)
#define DMERR(f, ...)		shim_say(f, ##__VA_ARGS__)
#define DMERR_LIMIT(f, ...)	((void)0)
#define DMWARN(f, ...)		((void)0)
#define DMWARN_LIMIT(f, ...)	((void)0)
#define DMINFO(f, ...)		((void)0)

static inline void bio_init(struct bio *bio, struct block_device *bdev, struct bio_vec *vecs,
			    unsigned int max_vecs, blk_opf_t opf)
{
	memset(bio, 0, sizeof(*bio));
	bio->bdev = bdev;
	bio->vecs = vecs;
	bio->opf = opf;
	(void)max_vecs;
}
static inline int blk_status_to_errno(blk_status_t s) { return s ? -EIO : 0; }
static inline void bio_uninit(struct bio *bio) { (void)bio; }
static inline void __bio_add_page(struct bio *bio, struct page *page, unsigned int len,
				  unsigned int off)
{
	(void)off;
	bio->vecs[bio->n].page = page;
	bio->vecs[bio->n++].len = len;
}
static inline int submit_bio_wait(struct bio *bio)
{
	return shim_io(bio->bdev, bio->bi_iter.bi_sector, bio->vecs, bio->n, bio->opf);
}
static inline void submit_bio(struct bio *bio)
{
	bio->bi_status = shim_io(bio->bdev, bio->bi_iter.bi_sector, bio->vecs, bio->n,
				 bio->opf) ? 10 : 0;
	bio->bi_end_io(bio);
}
/* The disk is found busy twice before it is found to be done. */
static inline void init_completion(struct completion *c) { c->x = 2; }
static inline bool completion_done(struct completion *c) { return c->x-- <= 0; }
static inline void complete(struct completion *c) { (void)c; }
static inline unsigned long wait_for_completion_io_timeout(struct completion *c, unsigned long t)
{
	(void)c; (void)t;
	return 1;
}

static inline blk_status_t errno_to_blk_status(int e) { return e ? 10 : 0; }

static inline void *page_address(struct page *page) { return page->data; }
static inline void clear_page(void *p) { memset(p, 0, PAGE_SIZE); }
static inline struct page *alloc_page(gfp_t g) { (void)g; return calloc(1, sizeof(struct page)); }
static inline void __free_page(struct page *p) { free(p); }
static inline void *kvzalloc(size_t n, gfp_t g) { (void)g; return calloc(1, n); }
static inline void *kzalloc(size_t n, gfp_t g) { (void)g; return calloc(1, n); }
static inline void *kvmalloc(size_t n, gfp_t g) { (void)g; return malloc(n); }
static inline void *kvcalloc(size_t n, size_t s, gfp_t g) { (void)g; return calloc(n, s); }
static inline void kvfree(void *p) { free(p); }
static inline void kfree(void *p) { free(p); }
static inline unsigned int memalloc_noio_save(void) { return 0; }
static inline void memalloc_noio_restore(unsigned int f) { (void)f; }

static inline void *memchr_inv(const void *p, int c, size_t n)
{
	const u8 *s = p;

	if (!n || (*s == (u8)c && !memcmp(s, s + 1, n - 1)))
		return NULL;
	while (*s == (u8)c)
		s++;
	return (void *)s;
}
static inline void strscpy(char *to, const char *from, size_t n) { snprintf(to, n, "%s", from); }
static inline void bitmap_zero(unsigned long *m, unsigned int n)
{
	memset(m, 0, (n + 63) / 64 * 8);
}
static inline void __set_bit(unsigned int b, unsigned long *m) { m[b / 64] |= 1ul << b % 64; }
static inline bool test_bit(unsigned int b, const unsigned long *m)
{
	return m[b / 64] >> b % 64 & 1;
}
static inline int atomic_read(const atomic_t *a) { return a->v; }
static inline void atomic_set(atomic_t *a, int v) { a->v = v; }
static inline void atomic_inc(atomic_t *a) { a->v++; }
static inline void atomic_dec(atomic_t *a) { a->v--; }
static inline void atomic_add(int n, atomic_t *a) { a->v += n; }
static inline void atomic_sub(int n, atomic_t *a) { a->v -= n; }
static inline void atomic64_add(int64_t n, atomic64_t *a) { a->v += n; }
static inline void atomic64_inc(atomic64_t *a) { a->v++; }
static inline int64_t atomic64_read(const atomic64_t *a) { return a->v; }
static inline u64 atomic64_inc_return(atomic64_t *a) { return ++a->v; }
static inline u64 atomic64_cmpxchg(atomic64_t *a, u64 old, u64 new)
{
	u64 was = a->v;

	if (was == old)
		a->v = new;
	return was;
}
static inline void atomic64_set(atomic64_t *a, int64_t v) { a->v = v; }

static inline sector_t get_start_sect(struct block_device *b) { (void)b; return 0; }
static inline sector_t bdev_nr_sectors(struct block_device *b) { return b->blocks * 8; }
static inline int blkdev_issue_flush(struct block_device *b) { (void)b; return 0; }
static inline void *dm_per_bio_data(struct bio *b, size_t n) { (void)n; return b; }
static inline struct bio *dm_bio_from_per_bio_data(void *d, size_t n) { (void)n; return d; }
static inline struct mapped_device *dm_table_get_md(struct dm_table *t) { (void)t; return NULL; }
static inline const char *dm_device_name(struct mapped_device *md) { (void)md; return "dm"; }
static inline int dm_copy_name_and_uuid(struct mapped_device *md, char *n, char *u)
{
	(void)md; (void)n; (void)u;
	return 0;
}
static inline struct gendisk *dm_disk(struct mapped_device *md)
{
	static struct gendisk disk = { .major = 253 };

	(void)md;
	return &disk;
}
static inline int64_t ktime_get_real_seconds(void) { return 0; }
static inline u64 get_random_u64(void) { return 7; }
static inline void uuid_gen(uuid_t *u) { memset(u, 7, sizeof(*u)); }
#endif
