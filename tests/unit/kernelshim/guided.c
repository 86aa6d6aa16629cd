// SPDX-License-Identifier: GPL-2.0-only
/*
 * libFuzzer chooses: it changes the bytes of an input, and keeps what makes the loader do
 * something new.
 *
 * An input is a section of 64 bytes, of which the area is made, and sections of 32, each
 * of which damages it, or overwrites bytes of a block with its own.  The bytes of a section
 * are its choices in their order.  When they are used up a generator goes on, from a state
 * that depends on the input's first two bytes and the section's number: so a change in one
 * section leaves the others what they are.
 */
#include "fuzz.h"

#define FIRST_SECTION	64
#define SECTION		32

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const u8 *data, size_t size);

static const u8 *next, *end;		/* of the section */
static u64 state;

u64 choice(u64 n)
{
	int i, bytes = !n ? 8 : n <= 0x100 ? 1 : n <= 0x10000 ? 2 : 4;
	u64 z = 0;

	if (end - next < bytes) {
		next = end;
		z = splitmix(&state);
	} else {
		for (i = 0; i < bytes; i++)
			z |= (u64)*next++ << 8 * i;
	}
	return n ? z % n : z;
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc; (void)argv;
	fuzz_init();
	atexit(print_counts);
	strcpy(area_name, "the area of this input");
	return 0;
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
	const u8 *all = data + size;
	u64 seed = size < 2 ? 0 : data[0] | data[1] << 8;
	u32 number = 0;

	next = data + min(size, (size_t)2);
	end = data + min(size, (size_t)FIRST_SECTION);
	state = seed << 32;
	make_area();
	while (end < all) {
		next = end;
		end = next + min(all - next, (ptrdiff_t)SECTION);
		state = seed << 32 | ++number << 16;
		if (choice(2))
			damage();
		else
			overwrite();
	}
	judge();
	return 0;
}
