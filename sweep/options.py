"""What the commands of `emm` share: options, and how a space, a console, a destination come from them."""

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trainables.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from search_spaces.space import SearchSpace
    from sweep.tracking import Destination
    from trainables.datasets import ImageData

SpaceName = Annotated[str, typer.Argument(metavar="SPACE", help="A search space; `emm spaces` lists them.")]
Settings = Annotated[list[str], typer.Option("--set", metavar="PATH=VALUE", help="Set any field, e.g. network.depth=2.")]
Precision = Annotated[float | None, typer.Option(help="Standard deviation of ln EMM at which a study is decided.")]
Target = Annotated[float | None, typer.Option(help="The R_mem whose crossing is sought.")]
Sweep_ = Annotated[str, typer.Argument(metavar="DIR", help="The --out directory or --storage URL of a sweep.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Dashboard = Annotated[str, typer.Option(help="Ray's dashboard, as http://HOST:8265.")]
StorageUrl = Annotated[str, typer.Option(help="URL for trials and results that every node can open (s3://, gs://, NFS path).")]


def space_of(name: str, settings: Sequence[str], **more: float | None) -> "SearchSpace":
    from search_spaces.find import find_space
    from search_spaces.space import parse_settings

    given: dict[str, Any] = {path: value for path, value in more.items() if value is not None}
    parsed = parse_settings(list(settings))
    for path in parsed.keys() & given.keys():
        if parsed[path] != given[path]:
            raise UserError(f"--set {path}: it is set to {parsed[path]}, and by its own option to {given[path]}; say it once")
    return find_space(name).with_settings({**parsed, **given})


def destination(space: "SearchSpace", views: Path, uri: str | None, data_of: "Callable[[str], ImageData]") -> "Destination":
    from sweep.tracking import Destination
    from sweep.ui import local_tracking

    local, artifacts = local_tracking(views)
    return Destination(uri or local, None if uri else artifacts, space.images, data_of)


def console(quiet: bool = False) -> "Console":
    from sweep.terminal import VisibleConsole

    return VisibleConsole(quiet=quiet, width=None if sys.stdout.isatty() else 120)


def shown(path: Path) -> str:
    """As the user would type it."""
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)
