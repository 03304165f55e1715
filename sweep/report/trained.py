"""What was trained and how it was measured, field by field: what varies first, then what differs
from the recipe, then all else."""

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

from search_spaces.find import RECIPES
from search_spaces.settings import text_of
from search_spaces.space import NamedConfiguration, settable
from sweep.analysis.summary import SweepSummary
from sweep.report.tables import Rows
from trainables.config.data import without_places
from trainables.config.measurement import Measurement
from trainables.config.trial import Configuration
from trainables.data.labels import planned_label_dim
from trainables.networks.sizes import size_of_network
from trainables.text import human

VARIED = "field", "values", "what it is"
DIFFERING = "field", "value", "recipe", "what it is"
OTHERS = "field", "value", "what it is"
MOST_VALUES = 12  # of a field, in a cell
NO_FIELD = "-"  # in place of a value: the recipe, of another kind, has no such field


class Trained(NamedTuple):
    """Fields by their path, in words: `varied` between the configurations, `differing` from the
    recipe that is most like them, which is called `recipe`, and the `others`. `gist`: section → the
    few that a reader looks for first."""

    recipe: str
    varied: Rows
    differing: Rows
    others: Rows
    gist: dict[str, str]


def trained(summary: SweepSummary) -> Trained:
    return trained_in(summary.configurations, summary.space.measurement)


def trained_in(configurations: Sequence[NamedConfiguration], how: Measurement) -> Trained:
    """No directory of the user's is in it, nor what else may be a place on their disk."""
    of_all = [_fields(named.configuration, how) for named in configurations]
    paths = list(dict.fromkeys(path for fields in of_all for path in fields))
    name, recipe = _nearest_recipe(of_all[0])
    varied: Rows = []
    differing: Rows = []
    others: Rows = []
    for path in paths:
        values = list(dict.fromkeys(fields[path] for fields in of_all if path in fields))
        what = _described(path, of_all)
        if len(values) > 1:
            varied.append((path, _some(values), what))
        elif recipe.get(path) != values[0]:
            differing.append((path, values[0], recipe.get(path, NO_FIELD), what))
        else:
            others.append((path, values[0], what))
    gist = _gist(of_all, _parameters(configurations))
    return Trained(name, varied, differing, others, gist)


def _fields(configuration: Configuration, how: Measurement) -> dict[str, str]:
    """Path → value, as `--set` takes it."""
    sections: dict[str, dict[str, Any]] = {
        **configuration.model_dump(mode="json"),
        "data": without_places(configuration.data),
        "measurement": how.model_dump(mode="json"),
    }
    return {
        f"{section}.{name}": text_of(_without_places(value))
        for section in ("network", "diffusion", "trainer", "data", "labels", "measurement")
        for name, value in _kind_first(sections[section]).items()
    }


def _kind_first(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {**({"kind": fields["kind"]} if "kind" in fields else {}), **fields}


def _without_places(value: Any) -> Any:
    """What looks like a path, as in options of the user's own code, is "...", which JSON leaves as it is."""
    if isinstance(value, dict):
        return {key: _without_places(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_without_places(inner) for inner in value]
    return "..." if isinstance(value, str) and ("/" in value or "\\" in value) else value


def _nearest_recipe(fields: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """The one from which the fewest fields differ; "paper" has the defaults of all fields."""
    known = {name: _fields(*recipe) for name, recipe in RECIPES.items()}
    name = min(known, key=lambda name: len(set(fields.items()) - set(known[name].items())))
    return name, known[name]


@cache
def _descriptions() -> dict[tuple[str, str], str]:
    """(path, kind of its section) → what the field is."""
    return {(one.path, one.kind): one.description for one in settable()}


def _described(path: str, of_all: Iterable[Mapping[str, str]]) -> str:
    section = path.partition(".")[0]
    kinds = dict.fromkeys(fields.get(f"{section}.kind", "") for fields in of_all if path in fields)
    found = (_descriptions().get((path, kind)) for kind in ("", *kinds))
    return next(filter(None, found), "")


def _some(values: Sequence[str]) -> str:
    more = len(values) - MOST_VALUES
    return ", ".join(values[:MOST_VALUES]) + (f" and {more} more" if more > 0 else "")


GIST = {  # section of the page → the fields, each behind these words
    "network": {"network.kind": "", "network.builder": ""},
    "diffusion": {"diffusion.kind": ""},
    "training": {
        "trainer.builder": "",
        "trainer.length": "length",
        "trainer.clock": "in",
        "trainer.batch": "batch",
        "trainer.optimizer": "",
        "trainer.lr": "lr",
        "trainer.precision": "",
    },
    "labels": {"labels.kind": ""},
}


def _gist(of_all: Sequence[Mapping[str, str]], parameters: str) -> dict[str, str]:
    gist = {}
    for section, fields in GIST.items():
        parts = []
        for path, words in fields.items():
            values = list(dict.fromkeys(one[path] for one in of_all if path in one))
            parts += [f"{words} {_some(values)}".strip()] if values else []
        gist[section] = ", ".join(parts).replace(", in ", " ")
    if parameters:
        gist["network"] += f", {parameters} parameters"
    return gist


def _parameters(configurations: Sequence[NamedConfiguration]) -> str:
    """The least and the most; "" where only torch can count them."""
    counts = []
    for named in configurations:
        one = named.configuration
        if one.trainer.kind == "custom" or one.labels.kind == "unique":  # as many as there are N
            return ""
        data, labels = one.data, planned_label_dim(one, 2)
        size = size_of_network(one.network, data.resolution, data.channels, labels)
        if size is None:
            return ""
        counts.append(size.parameters)
    low, high = min(counts), max(counts)
    return human(low) if low == high else f"{human(low)} to {human(high)}"
