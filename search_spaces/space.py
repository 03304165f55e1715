"""A search space: a named list of configurations, the range of N, and how each trial is measured. Data only, no torch."""

import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from trainables.config import Arrays, Configuration, Folder, Frozen, Measurement, key_of, validated, with_fields
from trainables.errors import UserError


class Search(Frozen):
    """What is sought, between which sizes, how precisely."""

    n_low: int = Field(ge=2, description="smallest N that is tried")
    n_high: int = Field(description="largest N that is tried")
    target: float = Field(0.9, gt=0, lt=1, description="the R_mem whose crossing is sought, 1 − ε")
    precision: float = Field(0.12, gt=0, le=1, description="standard deviation of ln EMM at which a study is decided")
    guard: bool = Field(False, description="also try N = 4 × the estimate, against curves that dip and rise again")
    replicates: int = Field(1, ge=1, le=100, description="trials at every N that is tried, each with a seed of its own")
    final_samples: int = Field(
        0, ge=0, le=1_000_000, description="images of a last measurement of the trials nearest the EMM; 0: none"
    )
    max_trials: int = Field(24, ge=1, le=1000, description="trials per study (times replicates) before it is unresolved")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.n_high <= self.n_low:
            raise ValueError(f"n_high must be above n_low ({self.n_low}), not {self.n_high}")
        return self


class Tracking(Frozen):
    """What leaves the storage for MLflow."""

    images: Literal["none", "generated", "pairs"] | None = Field(
        None,
        description="pictures: none, generated ones, or pairs of these and their nearest training images; None: by the data",
    )


class NamedConfiguration(Frozen):
    """A configuration of a space: `factors` are the fields that the space varies, and their values."""

    name: str
    factors: dict[str, Any]
    configuration: Configuration


class Expected(Frozen):
    """The band in which a published R_mem at N = `n` must be found again."""

    n: int
    r_mem_low: float
    r_mem_high: float


class SearchSpace(Frozen):
    """A base recipe and what varies: every combination of the values in `vary` is a configuration."""

    name: str
    question: str = Field(description="what the space answers, one sentence")
    source: str = Field(description="where the recipe comes from")
    expectation: str = Field(description="what is known about the answer")
    cost: str = Field(description="cost class, in words")
    base: Configuration
    vary: dict[str, tuple[Any, ...] | dict[str, dict[str, Any]]] = Field(
        description="dotted path of a field → its values; or a factor → its values' names → the fields each sets, by path"
    )
    search: Search
    measurement: Measurement
    tracking: Tracking = Tracking()
    expected: Expected | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (accept := self.measurement.accept) is not None and accept < self.search.target:
            raise ValueError(f"measurement.accept: at least search.target ({self.search.target}) is needed, not {accept}")
        return self

    @property
    def configurations(self) -> list[NamedConfiguration]:
        """In the order of the table. Raises UserError if a value is not allowed or two configurations are the same."""
        named = [self._named(choice) for choice in itertools.product(*map(_choices, self.vary.items()))]
        if not named:
            raise UserError(f"{self.name}: vary: every factor needs a value or more")
        keys = [key_of(one.configuration.model_dump(mode="json")) for one in named]
        if len(set(keys)) < len(keys):
            raise UserError(f"{self.name}: two configurations are the same; check the values of {', '.join(self.vary)}")
        return named

    def _named(self, choice: Sequence[tuple[str, Any, Mapping[str, Any]]]) -> NamedConfiguration:
        factors = {factor: value for factor, value, _ in choice}
        name = ",".join(f"{factor}={_text(value)}" for factor, value in factors.items()) or "base"
        fields = {path: value for _, _, settings in choice for path, value in settings.items()}
        return NamedConfiguration(name=name, factors=factors, configuration=with_fields(self.base, fields))

    @property
    def _varied(self) -> set[str]:
        """Paths of all fields that differ between the configurations."""
        grouped = [settings for values in self.vary.values() if isinstance(values, dict) for settings in values.values()]
        return {path for path, values in self.vary.items() if not isinstance(values, dict)}.union(*grouped)

    @property
    def images(self) -> Literal["none", "generated", "pairs"]:
        """Which pictures leave the storage: what is asked for; without that, none of a user's own data."""
        data = [named.configuration.data for named in self.configurations]
        sources = [*data, *(one.mix.data for one in data if one.mix)]
        private = any(isinstance(source, Folder | Arrays) for source in sources)
        return self.tracking.images or ("none" if private else "pairs")

    def with_settings(self, settings: Mapping[str, Any]) -> "SearchSpace":
        """The space with fields set by path: `network.width`, `measurement.n_samples`, `search.n_high`, …

        Raises UserError for an unknown path, a value that is not allowed, or a field that the space varies.
        """
        if varied := sorted(set(settings) & self._varied):
            raise UserError(f"{varied[0]}: {self.name} varies this field; choose a space that does not, or write one")
        parts: dict[str, dict[str, Any]] = {"measurement": {}, "search": {}, "tracking": {}, "base": {}}
        for path, value in settings.items():
            section, _, rest = path.partition(".")
            inside = bool(section in parts and rest)
            parts[section if inside else "base"][rest if inside else path] = value
        changed = {
            section: with_fields(getattr(self, section), changes, prefix="" if section == "base" else f"{section}.")
            for section, changes in parts.items()
            if changes
        }
        space = validated(SearchSpace, {**dict(self), **changed})
        assert space.configurations  # every combination is valid, or raises
        return space


def _choices(varied: tuple[str, Any]) -> list[tuple[str, Any, Mapping[str, Any]]]:
    """(factor, value, fields by path) of each value of a factor; the name of a value is a number where it can be read so."""
    path, values = varied
    if isinstance(values, dict):
        return [(path, int(name) if name.isdigit() else name, settings) for name, settings in values.items()]
    return [(path.rsplit(".", 1)[-1], value, {path: value}) for value in values]


def parse_settings(settings: list[str]) -> dict[str, Any]:
    """`["network.width=32", …]` → {"network.width": 32, …}; a value is JSON if it can be read so, else text."""
    parsed = {}
    for setting in settings:
        path, equals, text = setting.partition("=")
        if not equals or not path:
            raise UserError(f"--set {setting}: write it as path=value, as in --set network.width=32")
        try:
            parsed[path.strip()] = json.loads(text)
        except json.JSONDecodeError:
            parsed[path.strip()] = text
    return parsed


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
