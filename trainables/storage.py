"""Files on any storage that pyarrow or fsspec opens (a directory, NFS, s3://, gs://, abfs://), never half there."""

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any
from uuid import uuid4

from pyarrow import fs

from trainables.errors import UserError


def redacted(url: str) -> str:
    """The URL as it may be shown: without user, password, and what a query says of keys and tokens."""
    # a secret key of S3 may hold a slash, and `user:` is no host where no port follows
    without_user = re.sub(r"://([^/]*|[^/:@]+:(?!\d{1,5}/)[^@?]*)@", "://…@", url, count=1)
    return re.sub(r"(?i)([?&][^=&]*(?:key|secret|token|password|sig)[^=&]*=)[^&]+", r"\1…", without_user)


class Storage:
    """A directory, by path or URL; names inside it are relative, with `/`. Objects pickle, so that trials get one.

    `url` may hold credentials; `shown` does not.
    """

    def __init__(self, url: str) -> None:
        self.url = url if "://" in url else os.path.abspath(url)
        self._connect()

    def _connect(self) -> None:
        if "://" not in self.url:
            self.filesystem, self.root = fs.LocalFileSystem(), self.url
            return
        try:
            self.filesystem, self.root = _from_url(self.url)
        except (ValueError, OSError, ImportError) as error:
            reason = str(error).replace(self.url, self.shown)
            raise UserError(f"storage: {self.shown!r} can't be opened ({reason})") from None

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
    def is_local(self) -> bool:
        return isinstance(self.filesystem, fs.LocalFileSystem)

    def path(self, name: str) -> str:
        return f"{self.root.rstrip('/')}/{name}"

    @contextmanager
    def writing(self, name: str) -> Iterator[IO[bytes]]:
        """A binary stream whose content appears under `name` at once, when all of it is written and the block ended well.

        A local file is synced and renamed. On object storage nothing appears before the stream is closed; an upload that
        broke is put under a name that nobody reads.
        """
        path = self.path(name)
        part = f"{path}.{uuid4().hex[:8]}.part"
        self.filesystem.create_dir(path.rsplit("/", 1)[0], recursive=True)
        try:
            if self.is_local:
                with open(part, "wb") as local:
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

    def write(self, name: str, content: bytes) -> None:
        with self.writing(name) as stream:
            stream.write(content)

    def read(self, name: str) -> bytes | None:
        """The content of a file, or None if there is none."""
        try:
            with self.filesystem.open_input_file(self.path(name)) as stream:
                return bytes(stream.read())
        except FileNotFoundError:
            return None

    def write_json(self, name: str, value: Any) -> None:
        self.write(name, (json.dumps(value, indent=1, allow_nan=False) + "\n").encode())

    def read_json(self, name: str) -> Any:
        """The value in a JSON file, or None if there is no such file."""
        content = self.read(name)
        return None if content is None else json.loads(content)

    def exists(self, name: str = "") -> bool:
        return bool(self.filesystem.get_file_info(self.path(name)).type != fs.FileType.NotFound)

    def list(self, directory: str = "") -> list[str]:
        """Names of the files and directories in `directory`, sorted; parts of broken writes left out."""
        found = self.filesystem.get_file_info(fs.FileSelector(self.path(directory), allow_not_found=True))
        return sorted(info.base_name for info in found if not info.base_name.endswith(".part"))

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
