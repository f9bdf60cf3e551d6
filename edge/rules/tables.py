"""The CSV files that rules look up in. What would be looked up wrongly, or never found, is refused."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path

from edge.errors import ConfigError

_TABLE_BYTES_MAX = 4 * 1024 * 1024

Table = dict[str, dict[str, str]]


class _Wrong(Exception):
    """problem, fix"""


def read_table(file: str, field: str, path: Path) -> Table:
    """Its rows by their first cell; its first line names the columns. Raises ConfigError, for `field` of `file`."""
    try:
        return _rows(path)
    except OSError as error:
        raise ConfigError(file, field, f"cannot be read: {error.strerror}", "Name a CSV file that exists.") from None
    except _Wrong as wrong:
        raise ConfigError(file, field, *wrong.args) from None
    except (ValueError, csv.Error) as error:
        raise ConfigError(file, field, f"is no CSV: {error}", "Save it as UTF-8 with a header.") from None


def _rows(path: Path) -> Table:
    raw = path.read_bytes()
    if len(raw) > _TABLE_BYTES_MAX:
        raise _Wrong(f"is longer than {_TABLE_BYTES_MAX} bytes", "Name a smaller table.")
    lines = _lines(raw.decode("utf-8-sig"))  # spreadsheets begin a file with a byte order mark
    _, header = next(lines, (1, []))
    while header and not header[-1]:
        header.pop()
    _check(header)
    table = {}
    for number, cells in lines:
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) < len(header) or any(cells[len(header) :]):
            count = f"{len(cells)} cell{'s' * (len(cells) != 1)}, its header {len(header)}"
            raise _Wrong(f"line {number} has {count}", 'Write a cell a column; one with commas in it as "a, b".')
        table[cells[0]] = dict(zip(header, cells, strict=False))
    return table


def _lines(text: str) -> Iterator[tuple[int, list[str]]]:
    """Each with the number of its first line in the file."""
    number, reader = 1, csv.reader(io.StringIO(text, newline=""), strict=True)
    for cells in reader:
        yield number, cells
        number = reader.line_num + 1


def _check(header: list[str]) -> None:
    if not any(name.strip() for name in header):
        raise _Wrong("has no header in its first line", "Name the columns there, such as id,room.")
    twice = sorted({name for name in header if name and header.count(name) > 1})
    if twice:
        raise _Wrong(f"its header has {twice[0]!r} twice", "Give each column a name of its own.")
    if len(header) == 1 and (mark := next((one for one in ";\t" if one in header[0]), "")):
        raise _Wrong(f"its columns are separated by {mark!r}", "Save it with commas between the columns.")
