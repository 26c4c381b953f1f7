/*
 * fuzz_frames.c: feeds frames.c with changed frames, without PostgreSQL.
 *
 * Built by test_native_frames.py with AddressSanitizer and UndefinedBehaviorSanitizer: each input is
 * copied into memory of just its size, so that a read past its end ends the program.
 */
#include "frames.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint64_t state;

static uint32_t
dice(uint32_t sides)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return (uint32_t) (state >> 11) % sides;
}

/* Reads a payload as each kind of frame in turn; returns the bytes seen, so that none is optimised
 * away. */
static uint64_t
read_all(const unsigned char *data, size_t size)
{
	uint64_t	sum = 0;

	for (uint16_t columns = 1; columns < 4; columns++)
	{
		FrameReader reader = frame_reader(data, size);
		uint32_t	rows = frame_rows(&reader, columns);

		if ((uint64_t) rows * columns * 4 > size)
			abort();
		for (uint64_t cell = 0; cell < (uint64_t) rows * columns && reader.fault == NULL; cell++)
		{
			FrameText	text = frame_cell(&reader);

			for (uint32_t at = 0; at < text.length; at++)
				sum += text.data[at];
		}
		frame_end(&reader);
		if (reader.fault == NULL && reader.left != 0)
			abort();
	}
	for (int strings = 0; strings < 5; strings++)
	{
		FrameReader reader = frame_reader(data, size);

		sum += frame_u8(&reader);
		for (int string = 0; string < strings; string++)
		{
			FrameText	text = frame_string(&reader);

			for (uint32_t at = 0; at < text.length; at++)
				sum += text.data[at];
		}
		sum += frame_u64(&reader);
		frame_end(&reader);
	}
	if (size >= FRAME_HEADER)
	{
		int			kind;
		uint32_t	length;

		if (frame_header(data, &kind, &length) == NULL && length > FRAME_MAX_PAYLOAD)
			abort();
	}
	return sum;
}

int
main(int count, char **arguments)
{
	static const unsigned char honest[] = {
		0, 0, 0, 2, 0, 2,
		0, 0, 0, 1, 'x', 0, 0, 0, 5, 'g', 'p', 't', '-', '4',
		0, 0, 0, 1, 'y', 0xff, 0xff, 0xff, 0xff,
	};
	long		rounds = count > 1 ? atol(arguments[1]) : 100000;
	uint64_t	sum = 0;

	state = 88172645463325252u;
	for (long round = 0; round < rounds; round++)
	{
		size_t		size = dice(2) ? sizeof(honest) : dice(sizeof(honest) + 1);
		unsigned char *data = malloc(size > 0 ? size : 1);

		memcpy(data, honest, size);
		for (uint32_t change = dice(6); change > 0 && size > 0; change--)
		{
			static const unsigned char odd[] = {0, 1, 2, 4, 0x7f, 0x80, 0xff, 'T'};

			data[dice((uint32_t) size)] = dice(2) ? odd[dice(8)] : (unsigned char) dice(256);
		}
		sum += read_all(data, size);
		free(data);
	}
	printf("%llu\n", (unsigned long long) sum);
	return 0;
}
