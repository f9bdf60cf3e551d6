"""How large the segments of a stream's log are. Pure."""

from typing import Final

SEGMENT_BYTES_MAX: Final = 4 * 1024 * 1024
SEGMENT_BYTES_LEAST: Final = 256 * 1024
SEGMENTS_LEAST: Final = 8


def segment_bytes(bytes_max: int) -> int:
    """So that a stream has several segments: it frees and drops whole ones. bytes_max: of the stream, or its share of
    the disk where that is less: a full disk frees itself only by what lies before the last segment."""
    size = SEGMENT_BYTES_MAX
    while size * SEGMENTS_LEAST > bytes_max and size > SEGMENT_BYTES_LEAST:
        size //= 2
    return size
