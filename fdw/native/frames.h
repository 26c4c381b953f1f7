/*
 * frames.h: the frames that come from the engine, read without PostgreSQL.
 *
 * The layout is written down in tinydancer_fdw/frames.py. Nothing here includes a server header, so
 * that a fuzzer can feed these functions whatever it likes.
 */
#ifndef TINYDANCER_FRAMES_H
#define TINYDANCER_FRAMES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#pragma GCC visibility push(hidden)

#define FRAME_PROTOCOL 2
#define FRAME_HEADER 8
#define FRAME_MAX_PAYLOAD (64 * 1024 * 1024)

enum FrameKind
{
	FRAME_HELLO = 1,
	FRAME_WELCOME = 2,
	FRAME_SCAN = 3,
	FRAME_ROWS = 4,
	FRAME_END = 5,
	FRAME_ERROR = 6
};

/*
 * Reads a payload from its start. The first read that finds too few bytes sets `fault`, and every
 * read after it returns nothing: a caller may read a whole structure and look at `fault` once.
 */
typedef struct FrameReader
{
	const unsigned char *at;
	size_t		left;
	const char *fault;			/* what is wrong with the frame, or NULL */
} FrameReader;

/* One cell or string: bytes inside the frame, not terminated; data is NULL for SQL NULL. */
typedef struct FrameText
{
	const unsigned char *data;
	uint32_t	length;
} FrameText;

/* Reads a header of FRAME_HEADER bytes; returns what is wrong with it, or NULL. */
extern const char *frame_header(const unsigned char *header, int *kind, uint32_t *length);

extern FrameReader frame_reader(const unsigned char *payload, size_t length);
extern uint8_t frame_u8(FrameReader *reader);
extern uint16_t frame_u16(FrameReader *reader);
extern uint32_t frame_u32(FrameReader *reader);
extern uint64_t frame_u64(FrameReader *reader);
extern FrameText frame_string(FrameReader *reader);
extern FrameText frame_cell(FrameReader *reader);

/* Reads the head of a ROWS payload: its number of rows, each of `columns` cells. */
extern uint32_t frame_rows(FrameReader *reader, uint16_t columns);

/* Faults where bytes are left over. */
extern void frame_end(FrameReader *reader);

#pragma GCC visibility pop

#endif							/* TINYDANCER_FRAMES_H */
