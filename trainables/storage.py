"""Files on any storage that pyarrow or fsspec opens (a directory, NFS, s3://, gs://, abfs://),
never half there."""

import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO, Any
from uuid import uuid4

from pyarrow import fs

from trainables.errors import DamagedFile, UserError
from trainables.text import redacted, whole_number

# ends the name of a file that is being written, or of what SQLite keeps beside one
PART = re.compile(r"\.[0-9a-f]{8}\.part(-journal)?$")
PARTS = (".part", ".part-journal")


MOST_JSON = 2**26  # bytes of a file of JSON: far more than any that is written here


def parse_json(content: bytes, file: str) -> Any:
    """What a file of JSON says. Raises DamagedFile, naming `file`, for what this program does not
    write: broken JSON, numbers that are none or that no 64 bits hold, nesting without end.
    """
    try:
        return json.loads(content, parse_constant=_no_number, parse_int=whole_number)
    except (ValueError, RecursionError) as error:  # of json and of UTF-8
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else error
        raise DamagedFile(f"{file} is damaged ({reason})") from None


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no number")


class Storage:
    """A directory, by path or URL; names inside it are relative, with `/`. Objects pickle, so that
    trials get one.

    `url` may hold credentials; `shown` does not. `root` of a directory is its real path: a link to
    it is the same storage.
    """

    def __init__(self, url: str) -> None:
        self.url = url if "://" in url else os.path.abspath(url)
        self._connect()

    def _connect(self) -> None:
        if "://" not in self.url:
            self.filesystem, self.root = fs.LocalFileSystem(), os.path.realpath(self.url)
            try:
                self.root.encode()
            except UnicodeEncodeError:  # pyarrow's paths are UTF-8, whatever the locale
                raise UserError(f"{self.url}: its name is not UTF-8; choose another") from None
            return
        try:
            self.filesystem, self.root = _from_url(self.url)
        except (ValueError, OSError, ImportError) as error:
            reason = redacted(str(error).replace(self.url, self.shown))
            raise UserError(f"storage: {self.shown!r} can't be opened ({reason})") from None
        if self.is_local:
            self.root = os.path.realpath(self.root)

    def __reduce__(self) -> tuple[type["Storage"], tuple[str]]:
        return Storage, (self.url,)

    def __truediv__(self, name: str) -> "Storage":
        if "://" not in self.url:
            return Storage(f"{self.url}/{name}")
        base, mark, options = self.url.partition("?")  # s3://bucket/directory?region=…
        return Storage(f"{base.rstrip('/')}/{name}{mark}{options}")

    @property
    def shown(self) -> str:
        return redacted(self.url)

    @property
    def identity(self) -> str:
        """What a view knows the storage by, without links and credentials."""
        return self.root if self.is_local else self.shown

    def is_same(self, other: "Storage") -> bool:
        """Whether it is one storage by two URLs: links, credentials, a slash at the end and the order
        of options make no other."""
        return self._place() == other._place()

    def _place(self) -> list[str]:
        if self.is_local:
            return [self.root]
        url, _, options = self.shown.partition("?")
        parts = [part for part in options.split("&") if part and not part.endswith("=…")]
        return [url.replace("://…@", "://").rstrip("/"), self.root.rstrip("/"), *sorted(parts)]

    @property
    def is_local(self) -> bool:
        return isinstance(self.filesystem, fs.LocalFileSystem)

    def path(self, name: str) -> str:
        return f"{self.root.rstrip('/')}/{name}"

    @contextmanager
    def writing(self, name: str, mode: int = 0o666) -> Iterator[IO[bytes]]:
        """A binary stream whose content appears under `name` at once, when all of it is written and
        the block ended well.

        A local file gets `mode`, less the umask, from the start; it is synced and renamed. On
        object storage nothing appears before the stream is closed; an upload that broke is put
        under a name that nobody reads.
        """
        path = self.path(name)
        part = f"{path}.{uuid4().hex[:8]}.part"
        self.filesystem.create_dir(path.rsplit("/", 1)[0], recursive=True)
        try:
            if self.is_local:
                with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as local:
                    yield local
                    local.flush()
                    os.fsync(local.fileno())
            else:
                with self.filesystem.open_output_stream(part) as stream:
                    yield stream
            self.filesystem.move(part, path)
        except BaseException:
            if self.filesystem.get_file_info(part).type != fs.FileType.NotFound:
                self.filesystem.delete_file(part)
            raise

    def write(self, name: str, content: bytes, mode: int = 0o666) -> None:
        with self.writing(name, mode) as stream:
            stream.write(content)

    def reserve(self, name: str) -> bool:
        """Takes a name that nobody has, by an empty file, and returns whether it was free: of
        several at once one gets it.

        In directories only. Object stores have conditional writes (`If-None-Match`), but pyarrow's
        streams don't offer them.
        """
        self.filesystem.create_dir(self.root, recursive=True)
        try:
            os.close(os.open(self.path(name), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
        except FileExistsError:
            return False
        return True

    def read(self, name: str, most: int | None = None) -> bytes | None:
        """The content of a file, or None if there is none.

        Raises DamagedFile for what is no regular file (a pipe would be waited for) or has more than
        `most` bytes.
        """
        path = self.path(name)
        if self.is_local and os.path.exists(path) and not os.path.isfile(path):
            raise DamagedFile(f"{redacted(path)} is no regular file")
        try:
            with self.filesystem.open_input_file(path) as stream:
                if most is not None and (size := stream.size()) > most:
                    raise DamagedFile(
                        f"{redacted(path)} has {size:,} bytes, and at most {most:,} are expected there"
                    )
                return bytes(stream.read())
        except FileNotFoundError:
            return None

    def write_json(self, name: str, value: Any, mode: int = 0o666) -> None:
        self.write(name, (json.dumps(value, indent=1, allow_nan=False) + "\n").encode(), mode)

    def read_json(self, name: str) -> Any:
        """The value in a JSON file, or None if there is no such file. Raises DamagedFile as
        `parse_json` does."""
        content = self.read(name, MOST_JSON)
        return None if content is None else parse_json(content, redacted(self.path(name)))

    def exists(self, name: str = "") -> bool:
        return bool(self.filesystem.get_file_info(self.path(name)).type != fs.FileType.NotFound)

    def list(self, directory: str = "") -> list[str]:
        """Names of the files and directories in `directory`, sorted; parts of broken writes left
        out."""
        return [name for name in self._names(directory) if not name.endswith(PARTS)]

    def _names(self, directory: str = "") -> Sequence[str]:
        found = self.filesystem.get_file_info(
            fs.FileSelector(self.path(directory), allow_not_found=True)
        )
        return sorted(info.base_name for info in found)

    def delete_parts(self, of: str = "") -> None:
        """Removes, in this directory alone, what killed writes have left of files whose names begin
        with `of`."""
        for name in self._names():
            if name.startswith(of) and PART.search(name):
                self.delete(name)

    def delete(self, name: str) -> None:
        if self.exists(name):
            self.filesystem.delete_file(self.path(name))


def _from_url(url: str) -> tuple[fs.FileSystem, str]:
    """By pyarrow, else by fsspec, if there is a package for the scheme."""
    try:
        return fs.FileSystem.from_uri(url)  # type: ignore[no-any-return]
    except ValueError:  # a scheme that pyarrow does not know, or a URL that is none
        from fsspec.core import url_to_fs
        from fsspec.registry import known_implementations

        scheme = url.partition("://")[0]
        if scheme == "file" or scheme not in known_implementations:
            raise
        filesystem, path = url_to_fs(url)
        return fs.PyFileSystem(fs.FSSpecHandler(filesystem)), path
