"""The pictures in a folder or in a ZIP file, and their labels: of a table, of a dataset.json, or of
the folders in it."""

import csv
import io
import json
import os
import re
import zipfile
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import numpy as np

from trainables.data.pictures import SHOWN, Pictures, enumerated, picture_suffixes
from trainables.data.pools import Ints
from trainables.data.regular_files import check_size, open_regular, open_small, reading
from trainables.errors import UserError
from trainables.text import printable

LIST = "dataset.json"  # of labels, in the format of StyleGAN and EDM
# of a table of labels: what its columns may be called
FILE_COLUMNS = ("file", "file_name", "filename", "path", "image")
LABEL_COLUMNS = ("label", "class")


@dataclass
class PictureFiles:
    """The pictures below a folder, or in a ZIP file.

    names: [n] paths below it, with "/", sorted; open: a path below it → the file; left_out: of
    other things, kind → how many, and `first` of each kind.
    """

    root: Path
    open: Callable[[str], IO[bytes]]
    names: list[str] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)
    has_list: bool = False

    def add(self, name: str) -> None:
        """A file, by its path below the root."""
        parts = name.split("/")
        suffix = Path(parts[-1]).suffix.lower()
        self.has_list |= name == LIST
        if any(part.startswith(".") for part in parts):
            self.leave_out("hidden", name)
        elif suffix in picture_suffixes():
            self.names.append(name)
        else:
            self.leave_out(printable(suffix) or "without a suffix", name)

    def leave_out(self, kind: str, name: str) -> None:
        self.left_out[kind] += 1
        self.first.setdefault(kind, printable(name))

    @property
    def said(self) -> list[str]:
        """What was left out, in words; nothing if that is nothing."""
        kinds = [
            f"{count:,} {kind} ({self.first[kind]})"
            for kind, count in self.left_out.most_common(SHOWN)
        ]
        more = ["and others"] if len(self.left_out) > SHOWN else []
        return [f"left out: {', '.join(kinds + more)}"] if kinds else []

    @property
    def pictures(self) -> Pictures:
        return Pictures(self.names, lambda index: self.open(self.names[index]), self.said)


def is_picture_files(path: Path) -> bool:
    return path.is_dir() or (path.suffix.lower() == ".zip" and path.exists())


def list_pictures(option: str, path: Path) -> PictureFiles:
    """All pictures below a folder, or in a .zip file. Raises UserError for what can't be read."""
    found = _in_folder(option, path) if path.is_dir() else _in_zip(option, path)
    found.names.sort(key=lambda name: name.split("/"))
    return found


def _in_folder(option: str, root: Path) -> PictureFiles:
    """Also behind linked folders; each folder is entered once, a real one before links to it.

    Hidden files and folders (.DS_Store, ._a.png, .thumbnails) are left out.
    """
    found, entered = PictureFiles(root, lambda name: open_small(root / name)), set()
    real, linked = [root], list[Path]()
    while real or linked:
        directory = real.pop() if real else linked.pop(0)
        try:
            status = directory.stat()
            with os.scandir(directory) as entries:
                content = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            reason = f"this folder can't be read ({error.strerror})"
            raise UserError(
                f"{option} {printable(directory)}: {reason}; make it readable, or move it away"
            ) from None
        below = directory.relative_to(root).as_posix()
        if (status.st_dev, status.st_ino) in entered:
            found.leave_out("linked folders that are there already", below)
            continue
        entered.add((status.st_dev, status.st_ino))
        for entry in content:
            path = directory / entry.name
            if os.path.isdir(path) and not entry.name.startswith("."):
                (linked if entry.is_symlink() else real).append(path)
            else:
                found.add(path.relative_to(root).as_posix())
    return found


def _in_zip(option: str, path: Path) -> PictureFiles:
    """A single folder that holds all the rest is the root of it, as in what `zip -r` makes."""
    with reading(option, path, "ZIP file"):
        open_regular(path).close()
        archive = zipfile.ZipFile(path)
    members = {info.filename: info for info in archive.infolist() if not info.is_dir()}
    tops = {name.partition("/")[0] for name in members if "/" in name} - {"__MACOSX"}
    in_one = len(tops) == 1 and all("/" in name for name in members)
    top = f"{tops.pop()}/" if in_one else ""

    def opened(name: str) -> IO[bytes]:
        info = members[top + name]
        check_size(info.file_size)
        # never more bytes than that; the whole of it, since pictures are read back and forth
        return io.BytesIO(archive.read(info))

    found = PictureFiles(path, opened)
    for name in members:
        if name.startswith("__MACOSX/"):
            found.leave_out("of macOS", name)
        else:
            found.add(name.removeprefix(top))
    names = Counter(info.filename for info in archive.infolist())
    if len(names) < names.total():
        replaced = "that a later one of the same name replaces"
        found.left_out[replaced] = names.total() - len(names)
        found.first[replaced] = printable(names.most_common(1)[0][0])
    return found


# ---------------------------------------------------------------- their labels


def labels_of(
    option: str, files: PictureFiles, names: Sequence[str], table: Path | None
) -> tuple[Ints | None, str]:
    """Labels [n] of these pictures, or None, and in words where they are from: `table`, or else a
    dataset.json, or else the first level of folders."""
    if table is not None:
        listed = read_table(table)
        return _listed(f"data.labels_file: {printable(table)}", table.name, listed, names)
    of_list = _read_list(option, files)
    if of_list is None:
        return _by_folder(names)
    if not of_list:
        return None, f", without classes, as {LIST} says"
    return _listed(f"{option} {printable(files.root / LIST)}", LIST, of_list, names)


def numbered(labels: Sequence[str]) -> tuple[Ints, str]:
    """[n]: integers as they are, if all are such; else the place of each name among the sorted
    ones; and the classes in words."""
    with suppress(ValueError, OverflowError):
        if all(re.fullmatch(r"0|-?[1-9][0-9]*", label) for label in labels):
            numbers = np.array([int(label) for label in labels], dtype=np.int64)
            return numbers, f"{len(np.unique(numbers)):,} classes"
    classes, places = np.unique(np.array(labels, dtype=object), return_inverse=True)
    return places.astype(np.int64), f"{len(classes):,} classes ({enumerated(classes.tolist())})"


def _listed(
    where: str, called: str, listed: dict[str, str], names: Sequence[str]
) -> tuple[Ints, str]:
    missing = [name for name in names if name not in listed]
    if missing:
        more = f" and {len(missing) - 1:,} more" if len(missing) > 1 else ""
        raise UserError(f"{where} has no label for {printable(missing[0])}{more}")
    labels, classes = numbered([listed[name] for name in names])
    surplus = len(listed) - len(names)
    rest = f" ({surplus:,} more images in it are not there)" if surplus > 0 else ""
    return labels, f" in {classes}, as {printable(called)} says{rest}"


def _by_folder(names: Sequence[str]) -> tuple[Ints | None, str]:
    """None if there are fewer than two folders, or a picture is in none."""
    folders = [name.partition("/")[0] for name in names if "/" in name]
    classes, outside = sorted(set(folders)), len(names) - len(folders)
    if outside and classes:
        there = enumerated(classes)
        return None, f", without classes: {outside:,} lie in no subfolder ({there})"
    if len(classes) < 2:
        return None, ", without classes"
    places = {name: place for place, name in enumerate(classes)}
    labels = np.array([places[name] for name in folders], dtype=np.int64)
    return labels, f" in {len(classes):,} classes ({enumerated(classes)})"


def _read_list(option: str, files: PictureFiles) -> dict[str, str] | None:
    """Path below the root → label, by its dataset.json; empty if this says there are none.

    None without such a file; a dataset.json without a field "labels" is another one. Raises
    UserError if it is damaged, or if labels are not integers.
    """
    if not files.has_list:
        return None
    with reading(option, files.root / LIST, "list of labels"):
        with files.open(LIST) as file:
            content = json.loads(file.read())
        if not isinstance(content, dict) or "labels" not in content:
            return None
        labels = {name.replace("\\", "/"): label for name, label in content["labels"] or ()}
        for name, label in labels.items():
            if type(label) is not int or abs(label) >= 2**63:
                raise ValueError(f"the label of {name} is not an integer")
    return {name: str(label) for name, label in labels.items()}


def read_table(path: Path) -> dict[str, str]:
    """Path below the root → label, of a CSV file whose first line names its columns. Raises
    UserError."""
    option = "data.labels_file:"
    with reading(option, path, "table of labels"), open_small(path) as file:
        rows = csv.DictReader(io.TextIOWrapper(file, "utf-8-sig", newline=""), strict=True)
        columns = rows.fieldnames or []
        of_file, of_label = (
            next((name for name in names if name in columns), None)
            for names in (FILE_COLUMNS, LABEL_COLUMNS)
        )
        if of_file is None or of_label is None:
            raise UserError(
                f"{option} {printable(path)}: its first line must name a column file and a column "
                f"label, and names {enumerated(columns) or 'nothing'}"
            )
        labels: dict[str, str] = {}
        for row in rows:
            name, label = row[of_file], (row[of_label] or "").strip()
            name = (name or "").strip().replace("\\", "/").removeprefix("./")
            if not label or not name:
                raise ValueError(f"line {rows.line_num} has no {'label' if name else 'file'}")
            if labels.setdefault(name, label) != label:
                raise ValueError(f"{name} is there with two labels, {labels[name]} and {label}")
    return labels
