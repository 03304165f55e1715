"""What the commands share: options, the words of the command line, and how a space comes
from them."""

import os
import re
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from trainables.errors import UserError

if TYPE_CHECKING:
    from search_spaces.space import SearchSpace
    from trainables.config.measurement import Measurement

SPACES_OWN = "the space's"  # of an option that changes a field of the space


def spaces_like(incomplete: str) -> list[str]:
    """For the shell: names of spaces; files are the shell's own to complete."""
    from search_spaces.table import SPACES

    return [name for name in SPACES if name.startswith(incomplete)]


def paths_like(incomplete: str) -> list[str]:
    """For the shell: paths of fields."""
    from search_spaces.space import settable

    paths = dict.fromkeys(one.path for one in settable())
    return [path for path in paths if path.startswith(incomplete)]


def settings_like(incomplete: str) -> list[str]:
    return [f"{path}=" for path in paths_like(incomplete)]


def configurations_like(context: typer.Context, incomplete: str) -> list[str]:
    """For the shell: names of the configurations of the space that stands before."""
    from search_spaces.find import find_space

    try:
        # what stands before an option without a value yet is left over
        space = context.params.get("space") or next(iter(context.args), "")
        named = find_space(space).configurations
    except UserError:
        return []
    return [one.name for one in named if one.name.startswith(incomplete)]


SpaceName = Annotated[
    str,
    typer.Argument(
        metavar="SPACE",
        help="A search space: a name that `emm spaces` lists, or the path of a YAML or Python "
        "file.",
        autocompletion=spaces_like,
    ),
]

Settings = Annotated[
    list[str],
    typer.Option(
        "--set",
        metavar="PATH=VALUE",
        help="Set any field, e.g. network.depth=2; as often as needed. `emm fields` lists them.",
        autocompletion=settings_like,
    ),
]


def given_path(text: str) -> Path:
    """Of an option; pathlib would take an empty one, of a variable of the shell that is not set, for
    the directory where we are."""
    if not text:
        raise typer.BadParameter("it is empty; name a path (. is where you are)")
    return Path(text)


# of a path that is written or sent
PATH: Any = {"parser": given_path, "metavar": "<path>"}

Precision = Annotated[
    float | None,
    typer.Option(
        help="Standard deviation of ln EMM at which a study is decided.", show_default=SPACES_OWN
    ),
]

Target = Annotated[
    float | None,
    typer.Option(help="The R_mem whose crossing is sought.", show_default=SPACES_OWN),
]


class Effort(StrEnum):
    quick = "quick"
    normal = "normal"
    thorough = "thorough"


EffortOption = Annotated[
    Effort,
    typer.Option(
        "--effort",
        help="√2 times, or 1/√2 of, the precision: fewer or more trials near each EMM; a sweep "
        "goes on with a greater effort.",
    ),
]

Guard = Annotated[
    bool,
    typer.Option(
        "--guard", help="Also try N at 4 × the estimate, against curves that dip and rise."
    ),
]

Replicates = Annotated[
    int | None,
    typer.Option(min=1, help="Seeds at every N that is tried.", show_default=SPACES_OWN),
]

Targets = Annotated[
    str | None,
    typer.Option(
        help="Other R_mem to find the crossings of, with commas between: .5,.1",
        show_default=SPACES_OWN,
    ),
]

Sweep_ = Annotated[
    str, typer.Argument(metavar="DIR", help="The --out directory or --storage URL of a sweep.")
]

Only = Annotated[
    list[str],
    typer.Option(
        metavar="NAME",
        help="This configuration of the space alone, as often as needed; without it, the same "
        "command of `emm run` goes on with the others.",
        show_default="all",
        autocompletion=configurations_like,
    ),
]

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]

Dashboard = Annotated[str, typer.Option(help="Ray's dashboard, as http://HOST:8265.")]

StorageUrl = Annotated[
    str,
    typer.Option(
        help="URL for trials and results that every node can open (s3://, gs://, NFS path)."
    ),
]


Features = Annotated[
    str, typer.Option(metavar="MODULE:FUNCTION", help="What gives images their features.")
]

FeaturesOptions = Annotated[
    list[str],
    typer.Option(metavar="NAME=VALUE", help="A keyword argument of it; as often as needed."),
]


class Rule(StrEnum):
    ratio = "ratio"
    distance = "distance"


FeaturesRule = Annotated[
    Rule, typer.Option(help="What only 1 % of held-out images fall short of: d1 / d2, or d1.")
]

FeaturesVersion = Annotated[
    str, typer.Option(metavar="TEXT", help="Of its code and weights; see docs/features.md.")
]


def measurement_in(
    features: str, options: Sequence[str], rule: Rule, version: str = ""
) -> "Measurement":
    """One of nothing but the features that these options of a command ask for."""
    from search_spaces.settings import parse_settings
    from trainables.config.fields import validated
    from trainables.config.measurement import Measurement

    asked = {
        "features": features,
        "features_options": parse_settings(list(options), "--features-options", "size=96"),
        "features_rule": rule.value,
        "features_version": version,
    }
    return validated(Measurement, asked, "--")


def space_of(
    asked: "str | Mapping[str, Any] | SearchSpace",
    settings: Sequence[str] | Mapping[str, Any],
    **more: float | list[float] | None,
) -> "SearchSpace":
    """The space that `find_space` finds, with settings by path, as text or as they are; and others
    that an option of their own sets, where they are not None."""
    from search_spaces.find import find_space
    from search_spaces.settings import parse_settings

    given: dict[str, Any] = {path: value for path, value in more.items() if value is not None}
    if isinstance(settings, Mapping):
        parsed = dict(settings)
    else:
        parsed = parse_settings(list(settings))
    for path in parsed.keys() & given.keys():
        if parsed[path] != given[path]:
            raise UserError(
                f"--set {path}: it is set to {parsed[path]}, and by its own option to "
                f"{given[path]}; say it once"
            )
    return find_space(asked).with_settings({**parsed, **given})


def searched_space(
    asked: "str | Mapping[str, Any] | SearchSpace",
    settings: Sequence[str] | Mapping[str, Any],
    *,
    effort: Literal["quick", "normal", "thorough"],
    precision: float | None,
    target: float | None,
    guard: bool,
    replicates: int | None,
    targets: list[float] | None,
    early_accept: bool = False,
    final_samples: int | None = None,
) -> "SearchSpace":
    """The space, searched as the options of these names say. Raises UserError."""
    from sweep.search.rules import EFFORTS, accept_bound

    if effort not in EFFORTS:
        raise UserError(f"effort: one of {', '.join(EFFORTS)} is needed, not {effort!r}")
    if effort != "normal" and precision is not None:
        raise UserError(f"--effort {effort}: it sets the precision, as --precision does; say one")
    by_option = {
        "search.precision": precision,
        "search.target": target,
        "search.guard": guard or None,
        "search.replicates": replicates,
        "search.targets": targets,
        "search.final_samples": final_samples,
    }
    space = space_of(asked, settings, **by_option)
    if targets and space.search.target in targets:
        own = space.search.target
        raise UserError(f"--targets: {own:g} is the target itself; leave it out")
    changes = {}
    if effort != "normal":
        changes["search.precision"] = space.search.precision * EFFORTS[effort]
    if early_accept:
        highest = max((space.search.target, *space.search.targets))
        changes["measurement.accept"] = accept_bound(highest)
    return space.with_settings(changes) if changes else space


MOST_NAMES = 20  # of configurations, in a message


def check_names(space: "SearchSpace", option: str, names: Sequence[str]) -> None:
    """Raises UserError for a name that no configuration of a space has; it lists those there are."""
    there = [named.name for named in space.configurations]
    for name in names:
        if name in there:
            continue
        more = f", … ({len(there)} in all)" if len(there) > MOST_NAMES else ""
        raise UserError(f"{option} {name}: {space.name} has {', '.join(there[:MOST_NAMES])}{more}")


def shown(path: Path) -> str:
    """As the user would type it."""
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)


DURATION = re.compile(r"(\d+(?:\.\d+)?)([smhd])")

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def parse_targets(text: str) -> list[float]:
    """R_mem with commas between, as .5,.1; whether they make sense is the space's to say."""
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise UserError(f"--targets {text}: write numbers with commas between, as .5,.1") from None


def parse_deadline(text: str) -> float:
    """Seconds since the epoch of a duration from now (90m, 6h, 2d) or an ISO 8601 time (local
    unless it says otherwise)."""
    duration = DURATION.fullmatch(text)
    if duration:
        return time.time() + float(duration[1]) * UNITS[duration[2]]
    try:
        deadline = datetime.fromisoformat(text).timestamp()
    except ValueError:
        raise UserError(
            f"--deadline {text}: write a duration as 90m, 6h or 2d, or a time as 2026-01-31T08:00"
        ) from None
    if deadline <= time.time():
        raise UserError(f"--deadline {text}: this time has passed")
    return deadline


def with_zone(text: str) -> str:
    """A deadline as another machine may read it: a time gets the time zone of this one. Raises
    UserError as above."""
    deadline, is_duration = parse_deadline(text), DURATION.fullmatch(text)
    return text if is_duration else datetime.fromtimestamp(deadline).astimezone().isoformat()


def parse_k(text: str) -> float:
    """`1/3` or `0.5`. Raises UserError for what is no number between 0 and 1."""
    try:
        k = float(Fraction(text))
    except (ValueError, ZeroDivisionError, OverflowError):
        k = 0.0
    if not 0 < k < 1:
        raise UserError(f"--k {text}: a number between 0 and 1, for example 1/3 or 0.5")
    return k
