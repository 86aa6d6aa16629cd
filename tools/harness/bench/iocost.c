// SPDX-License-Identifier: GPL-2.0-only
/*
 * Count the instructions of single O_DIRECT preads or pwrites.
 *
 *   iocost DEVICE read|write BYTES POSITIONS
 *
 * POSITIONS is a file of 64-bit offsets in bytes, in the machine's order. Every
 * I/O is BYTES long. Prints the minimum, the median, and the mean without the
 * fiftieth part at either end, where timer ticks are. What is counted is the
 * processor's time stamp, which under QEMU's -icount shift=0 grows by one for
 * each instruction that the guest executes, the kernel's included.
 */
#define _GNU_SOURCE
#include <err.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <x86intrin.h>

#define WARM_UP 64	/* I/Os before the first that counts */

static int by_value(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static uint64_t *read_positions(const char *path, size_t *count)
{
	struct stat st;
	uint64_t *at;
	int fd = open(path, O_RDONLY);

	if (fd < 0 || fstat(fd, &st))
		err(1, "%s", path);
	*count = st.st_size / sizeof(*at);
	at = malloc(st.st_size + 1);
	if (!*count || !at || read(fd, at, st.st_size) != st.st_size)
		errx(1, "%s: cannot read the positions", path);
	close(fd);
	return at;
}

int main(int argc, char **argv)
{
	uint64_t *at, begin, sum = 0;
	size_t i, count, cut, bytes;
	int fd, write;
	void *buffer;

	if (argc != 5)
		errx(2, "usage: iocost DEVICE read|write BYTES POSITIONS");
	write = !strcmp(argv[2], "write");
	bytes = strtoul(argv[3], NULL, 10);
	at = read_positions(argv[4], &count);
	if (count < WARM_UP)
		errx(1, "%s: fewer than %d positions", argv[4], WARM_UP);
	fd = open(argv[1], O_RDWR | O_DIRECT);
	if (fd < 0)
		err(1, "%s", argv[1]);
	if (posix_memalign(&buffer, 4096, bytes))
		errx(1, "out of memory");
	memset(buffer, 0x5a, bytes);

	for (i = 0; i < count + WARM_UP; i++) {
		/* The first ones are done twice. */
		size_t n = i < WARM_UP ? i : i - WARM_UP;
		ssize_t done;

		begin = __rdtsc();
		done = write ? pwrite(fd, buffer, bytes, at[n]) :
			       pread(fd, buffer, bytes, at[n]);
		begin = __rdtsc() - begin;
		if (done != (ssize_t)bytes)
			err(1, "%s at %llu", argv[1], (unsigned long long)at[n]);
		if (i >= WARM_UP)
			at[n] = begin;
	}
	qsort(at, count, sizeof(*at), by_value);
	cut = count / 50;
	for (i = cut; i < count - cut; i++)
		sum += at[i];
	printf("%llu %llu %.1f\n", (unsigned long long)at[0],
	       (unsigned long long)at[count / 2], (double)sum / (count - 2 * cut));
	return 0;
}
