"""Files of anybody's, opened with care: regular ones only, of a size that may be read."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import psutil

from trainables.errors import UserError
from trainables.text import first_line, printable

# of a picture's file, or of a list of labels: several decoders read the whole of it into memory
MOST_BYTES = 2**31
MUCH = 2**26  # bytes, for which there may be no memory


def open_regular(path: Path) -> IO[bytes]:
    """Raises OSError for anything but a regular file: reading a pipe or a device may never end."""
    # a pipe without a writer is not waited for
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError("it is not a regular file")
    return open(descriptor, "rb")


def open_small(path: Path) -> IO[bytes]:
    """A regular file of at most MOST_BYTES; else OSError or ValueError."""
    file = open_regular(path)
    try:
        check_size(os.fstat(file.fileno()).st_size)
    except ValueError:
        file.close()
        raise
    return file


def check_size(size: int) -> None:
    """Raises ValueError if a file of so many bytes is more than may be read whole, or than this
    machine has free."""
    free = psutil.virtual_memory().available if size > MUCH else MOST_BYTES
    most = min(MOST_BYTES, free)
    if size > most:
        raise ValueError(f"{size:,} bytes are more than the {most:,} that can be read")


@contextmanager
def reading(option: str, path: Path, what: str) -> Iterator[None]:
    """Whatever goes wrong is a UserError that names the file."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # a decoder raises whatever a damaged file makes it stumble on
        reason = printable(first_line(error)[:200])
        raise UserError(f"{option} {printable(path)}: not a readable {what} ({reason})") from error
