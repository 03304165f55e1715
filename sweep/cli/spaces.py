"""The commands that say what there is: `spaces`, `fields`."""

import json
import shlex
from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sweep.cli.options import AsJson, Settings, paths_like, space_of, spaces_like
from sweep.cli.printing import say, show
from trainables.errors import UserError

if TYPE_CHECKING:
    from search_spaces.space import SearchSpace
    from trainables.config.listing import Listed

# of docs/fields.md
HEAD = """# Every setting

`emm fields --markdown` prints this page; `emm fields network.dit`, `emm fields trainer.lr` list some of it.

A setting is changed by its path: `--set PATH=VALUE` on the command line, a line of `settings` in the file of a space, or its
values in `vary`; `measurement`, `search` and `tracking` are sections of the file, and can't be varied. A value is JSON where
it can be read so, else text. The fields of a kind are there once that kind is set. The defaults are those of the fields;
recipes and spaces set some of them: `emm spaces SPACE --full` shows all that a space has, as a file to be edited and run.

The file of a space has `settings` beside the fields of `space`: fields of its base and their values."""

TEXTS = ("name", "question", "source", "expectation", "cost")


def spaces(
    space: Annotated[
        str | None,
        typer.Argument(
            metavar="[SPACE]",
            help="One of them, in words: a name, or the path of a YAML or Python file.",
            autocompletion=spaces_like,
        ),
    ] = None,
    full: Annotated[
        bool,
        typer.Option("--full", help="Print it as YAML, whole: to be edited, and run as a file."),
    ] = False,
    settings: Settings = [],  # noqa: B006
    as_json: AsJson = False,
) -> None:
    """Lists the search spaces, with their question and cost class; of one, also where it comes
    from, what is known, and all its settings."""
    from search_spaces.table import SPACES

    if space is None:
        if full or settings:
            option = "--full" if full else "--set"
            raise UserError(f"{option}: say of which space, as in emm spaces digits-width {option}")
        _list(list(SPACES.values()), as_json)
        return
    chosen = space_of(space, settings)
    if as_json:
        content = {**_row(chosen), **_content(chosen)}
        names = [named.name for named in chosen.configurations]
        say(json.dumps([{**content, "configuration_names": names}], indent=1))
    elif full:
        from search_spaces.yaml12 import write_yaml

        say("# edit and run it: emm run FILE.yaml --out DIR; what each field is: emm fields")
        say(write_yaml(_kinds_first(_content(chosen))), end="")
    else:
        _describe(chosen)
        say(f"all its settings, as a file to be edited: emm spaces {shlex.quote(space)} --full")


def _row(space: "SearchSpace") -> dict[str, Any]:
    texts = {name: getattr(space, name) for name in TEXTS}
    return {**texts, "configurations": len(space.configurations)}


def _content(space: "SearchSpace") -> dict[str, Any]:
    """All that a file has which is this space."""
    return space.model_dump(mode="json")


def _kinds_first(tree: Any) -> Any:
    """For reading: of every section its kind before its fields."""
    if not isinstance(tree, dict):
        return tree
    first = {"kind": tree["kind"]} if "kind" in tree else {}
    return {name: _kinds_first(value) for name, value in {**first, **tree}.items()}


def _list(there: "Iterable[SearchSpace]", as_json: bool) -> None:
    rows = [_row(space) for space in there]
    if as_json:
        say(json.dumps(rows, indent=1))
        return
    from sweep.report.console import Setting, grid

    columns: dict[str, Setting] = {
        "name": "left", "configurations": "left", "cost": "left", "question": "fold"
    }  # fmt: skip
    lines = [
        (row["name"], f"{row['configurations']:>2} x", row["cost"], row["question"]) for row in rows
    ]
    show(grid(columns, lines, has_head=False))


def _describe(space: "SearchSpace") -> None:
    from sweep.report.console import grid

    known = [(name, str(value)) for name, value in _row(space).items()]
    names = [("", named.name) for named in space.configurations]
    show(grid({"field": "left", "value": "fold"}, [*known, *names], has_head=False))


def fields(
    path: Annotated[
        str | None,
        typer.Argument(
            metavar="[PATH]",
            help="Of a section (network), a kind (network.dit), or a field (network.width).",
            autocompletion=paths_like,
        ),
    ] = None,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print tables in Markdown, as in docs/fields.md.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Lists every setting: its path for --set and vary, type, range, default and what it is."""
    from search_spaces.space import all_fields
    from trainables.config.listing import grouped

    chosen = all_fields() if path is None else _asked(path, all_fields())
    if as_json:
        say(json.dumps([asdict(field) for field in dict.fromkeys(chosen)], indent=1))
        return
    if markdown and path is None:
        say(HEAD)
    for number, (title, group) in enumerate(grouped(chosen).items()):
        if markdown:
            _tabulate(title, group)
        else:
            say("\n" if number else "", end="")
            _show(title, group)


def _asked(path: str, there: "list[Listed]") -> "list[Listed]":
    """Those that a path names, or begins. Raises UserError if there is none."""
    from trainables.config.listing import nearest

    found = [one for one in there if any(f"{name}.".startswith(f"{path}.") for name in one.names)]
    if found:
        return found
    section = path.partition(".")[0]
    kinds = [f"{one.section}.{one.kind}" for one in there if one.section == section and one.kind]
    names = {name for one in there for name in one.names}
    near = nearest(path, sorted(names.union(kinds)))
    if near:
        hint = f"did you mean {' or '.join(near)}?"
    else:
        hint = f"there are {', '.join(dict.fromkeys(kinds))}" if kinds else "emm fields lists all"
    raise UserError(f"{path}: there is no such field; {hint}")


def _cells(field: "Listed") -> tuple[str, ...]:
    notes = ["may change in a sweep that has begun"] if field.may_change else []
    notes += [] if field.counts else ["decides no result"]
    words = f"{field.description} ({'; '.join(notes)})" if notes else field.description
    return field.path, field.type, field.range, field.default, words


def _show(title: str, group: "list[Listed]") -> None:
    from sweep.report.console import Setting, grid

    columns: dict[str, Setting] = {title: "left", **dict.fromkeys(("type", "range"), "fold")}
    show(grid({**columns, "default": "fold", "": "fold"}, map(_cells, group)))


def _tabulate(title: str, group: "list[Listed]") -> None:
    say(f"\n## `{title}`\n\n| field | type | range | default | what it is |\n|---|---|---|---|---|")
    for field in group:
        path, *cells = (cell.replace("|", "\\|") for cell in _cells(field))
        say(f"| `{path}` | {' | '.join(cells)} |")
