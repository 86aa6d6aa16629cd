// SPDX-License-Identifier: GPL-2.0-only
/* The loader as it is, and the memory that it asks for. */
#include "fuzz.h"
#include <sanitizer/asan_interface.h>

char shim_log[256];

/* Pages are not zeroed, and poisoned while they are free. */
static struct page *free_pages[1024];
static unsigned int nr_free_pages;
static unsigned int nr_clean;		/* of them, from the bottom, hold nothing that was read */
int pages_out;

struct page *alloc_page(gfp_t g)
{
	struct page *p;

	(void)g;
	pages_out++;
	if (!nr_free_pages)
		return memset(malloc(sizeof(*p)), 0xa5, sizeof(*p));
	p = free_pages[--nr_free_pages];
	nr_clean = min(nr_clean, nr_free_pages);
	ASAN_UNPOISON_MEMORY_REGION(p, sizeof(*p));
	return p;
}

void __free_page(struct page *p)
{
	pages_out--;
	if (nr_free_pages == ARRAY_SIZE(free_pages)) {
		free(p);
		return;
	}
	free_pages[nr_free_pages++] = p;
	ASAN_POISON_MEMORY_REGION(p, sizeof(*p));
}

void forget_pages(void)
{
	for (; nr_clean < nr_free_pages; nr_clean++) {
		struct page *p = free_pages[nr_clean];

		ASAN_UNPOISON_MEMORY_REGION(p, sizeof(*p));
		memset(p, 0xa5, sizeof(*p));
		ASAN_POISON_MEMORY_REGION(p, sizeof(*p));
	}
}

void free_all_pages(void)
{
	while (nr_free_pages) {
		ASAN_UNPOISON_MEMORY_REGION(free_pages[nr_free_pages - 1], PAGE_SIZE);
		free(free_pages[--nr_free_pages]);
	}
}

#pragma GCC diagnostic ignored "-Wunused-function"
#pragma GCC diagnostic ignored "-Wunused-parameter"
#pragma GCC diagnostic ignored "-Wsign-compare"
#pragma GCC diagnostic ignored "-Wformat"
#pragma GCC diagnostic ignored "-Wmissing-field-initializers"
#define CHUNK_BLOCKS 2u		/* or the lookup would be filled at the end only */
#include "dm-remap-area.c"
#include "dm-remap-identity.c"
#include "dm-remap-commit.c"
#include "dm-remap-load.c"
#include "dm-remap-slots.c"

#include "others.h"
