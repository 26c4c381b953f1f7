/*
 * frames.c: reads the frames that come from the engine. Every length is checked before it is used.
 */
#include "frames.h"

const char *
frame_header(const unsigned char *header, int *kind, uint32_t *length)
{
	FrameReader reader = frame_reader(header + 4, 4);

	if (header[0] != 'T' || header[1] != 'D')
		return "it does not begin with \"TD\"";
	if (header[2] != FRAME_PROTOCOL)
		return "it is of another version of the protocol";
	*kind = header[3];
	*length = frame_u32(&reader);
	if (*length > FRAME_MAX_PAYLOAD)
		return "it is over the limit of 64 MiB";
	return NULL;
}

FrameReader
frame_reader(const unsigned char *payload, size_t length)
{
	FrameReader reader = {payload, length, NULL};

	return reader;
}

/* The next `count` bytes, or NULL where they are not there. */
static const unsigned char *
take(FrameReader *reader, size_t count)
{
	const unsigned char *at = reader->at;

	if (reader->fault == NULL && count > reader->left)
		reader->fault = "it ends too early";
	if (reader->fault != NULL)
		return NULL;
	reader->at += count;
	reader->left -= count;
	return at;
}

/* A big-endian number of `width` bytes. */
static uint64_t
number(FrameReader *reader, int width)
{
	const unsigned char *at = take(reader, (size_t) width);
	uint64_t	value = 0;

	if (at == NULL)
		return 0;
	while (width-- > 0)
		value = value << 8 | *at++;
	return value;
}

uint8_t
frame_u8(FrameReader *reader)
{
	return (uint8_t) number(reader, 1);
}

uint16_t
frame_u16(FrameReader *reader)
{
	return (uint16_t) number(reader, 2);
}

uint32_t
frame_u32(FrameReader *reader)
{
	return (uint32_t) number(reader, 4);
}

uint64_t
frame_u64(FrameReader *reader)
{
	return number(reader, 8);
}

FrameText
frame_string(FrameReader *reader)
{
	FrameText	text;

	text.length = frame_u32(reader);
	text.data = take(reader, text.length);
	if (text.data == NULL)
		text.length = 0;
	return text;
}

FrameText
frame_cell(FrameReader *reader)
{
	FrameText	cell = {NULL, 0};
	uint32_t	length = frame_u32(reader);

	/* A negative length is a NULL, as it is in PostgreSQL's own protocol. */
	if (reader->fault != NULL || length > INT32_MAX)
		return cell;
	cell.data = take(reader, length);
	cell.length = cell.data != NULL ? length : 0;
	return cell;
}

uint32_t
frame_rows(FrameReader *reader, uint16_t columns)
{
	uint32_t	rows = frame_u32(reader);
	uint16_t	width = frame_u16(reader);

	if (reader->fault != NULL)
		return 0;
	if (width != columns)
	{
		reader->fault = "its rows have another number of columns than was asked for";
		return 0;
	}
	/* Each cell takes at least the four bytes of its length. */
	if ((uint64_t) rows * width * 4 > reader->left)
	{
		reader->fault = "it claims more rows than it has bytes for";
		return 0;
	}
	return rows;
}

void
frame_end(FrameReader *reader)
{
	if (reader->fault == NULL && reader->left != 0)
		reader->fault = "it has bytes left over";
}
