"""A search space: a named list of configurations, the range of N, and how each trial is measured.
Data only, no torch."""

import itertools
import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache, cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, field_validator, model_validator

from search_spaces.factors import Choice, check_factor, choices_of
from search_spaces.settings import text_of
from trainables.config.fields import validated, with_fields
from trainables.config.identity import Frozen, identity, key_of
from trainables.config.listing import Listed, fields_of
from trainables.config.measurement import Measurement
from trainables.config.trial import MOST_IMAGES, Configuration
from trainables.errors import UserError

# a report, a job and runs are named by it
NAME = r"^[^./\\\x00-\x1f\x7f-\x9f][^/\\\x00-\x1f\x7f-\x9f]{0,99}$"
MOST_CONFIGURATIONS = 10_000
# stand beside the factors in tables and in MLflow, so no factor is called so
OF_A_TRIAL = ("configuration", "n", "seed")
OF_ALL = ("measurement", "search", "tracking")  # sections that are one for all configurations
MAY_CHANGE: dict[str, Any] = {"may_change": True}  # in a sweep that has begun


class Search(Frozen):
    """What is sought, between which sizes, how precisely."""

    n_low: int = Field(ge=2, description="smallest N that is tried")
    n_high: int = Field(le=MOST_IMAGES, description="largest N that is tried")
    target: float = Field(0.9, gt=0, lt=1, description="the R_mem whose crossing is sought, 1 − ε")
    precision: float = Field(
        0.12,
        gt=0,
        le=1,
        description="standard deviation of ln EMM at which a study is decided",
        json_schema_extra=MAY_CHANGE,
    )
    guard: bool = Field(
        False,
        description="also try N = 4 × the estimate, against curves that dip and rise again",
        json_schema_extra=MAY_CHANGE,
    )
    replicates: int = Field(
        1,
        ge=1,
        le=100,
        description="trials at every N that is tried, each with a seed of its own",
        json_schema_extra=MAY_CHANGE,
    )
    final_samples: int = Field(
        0,
        ge=0,
        le=1_000_000,
        description="images of a last measurement of the trials nearest the EMM; 0: none",
        json_schema_extra=MAY_CHANGE,
    )
    max_trials: int = Field(
        32,
        ge=1,
        le=1000,
        description="trials per study (times replicates) before it is unresolved",
        json_schema_extra=MAY_CHANGE,
    )

    targets: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = Field(
        (),
        max_length=4,
        description="other R_mem whose crossings are sought after that, with as many trials more",
        json_schema_extra=MAY_CHANGE,
    )

    @property
    def cap(self) -> int:
        """Trials of a study, at most."""
        return self.max_trials * self.replicates * (1 + len(self.targets))

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.n_high <= self.n_low:
            raise ValueError(f"n_high must be above n_low ({self.n_low}), not {self.n_high}")
        return self


class Tracking(Frozen):
    """What leaves the storage for MLflow."""

    images: Literal["none", "generated", "pairs"] | None = Field(
        None,
        description="pictures: none, generated ones, or pairs of these and their nearest training "
        "images; null: by the data",
    )


class NamedConfiguration(Frozen):
    """A configuration of a space: `factors` are the fields that the space varies, and their values.

    The name is for people; what a result belongs to is decided by
    `trainables.config.trial.configuration_key`.
    """

    name: str
    factors: dict[str, Any]
    configuration: Configuration

    @property
    def recipe(self) -> str:
        """Configurations of one recipe, the same trainer and diffusion, are expected to have like
        noise and shape."""
        parts = {"trainer": self.configuration.trainer, "diffusion": self.configuration.diffusion}
        return key_of({name: identity(part) for name, part in parts.items()})


class Expected(Frozen):
    """The band in which a published R_mem at N = `n` must be found again."""

    n: int = Field(description="number of training images N")
    r_mem_low: float = Field(description="lower end of the band")
    r_mem_high: float = Field(description="upper end of the band")


class SearchSpace(Frozen):
    """A base recipe and what varies: every combination of the values in `vary` is a
    configuration."""

    model_config = ConfigDict(ignored_types=(cached_property,))  # no private attribute

    name: str = Field(
        "space",
        description="of files and runs: no path, no control characters; by default the file's",
    )
    question: str = Field("", description="what the space answers, one sentence")
    source: str = Field("", description="where the recipe comes from")
    expectation: str = Field("", description="what is known about the answer")
    cost: str = Field("", description="cost class, in words")
    base: Configuration = Field(
        description="a recipe, digits or paper; or a whole configuration: data, labels, network, "
        "diffusion, trainer"
    )
    vary: dict[str, tuple[Any, ...] | dict[str, dict[str, Any]]] = Field(
        {},
        description="dotted path of a field → its values; or a factor → its values' names → "
        "the fields each sets, by path",
    )
    search: Search
    measurement: Measurement = Field(
        description="how R_mem is measured; where base is a recipe, what differs from the recipe's"
    )
    tracking: Tracking = Tracking()
    expected: Expected | None = None

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        if not re.match(NAME, name):
            raise ValueError(
                "at most 100 characters are needed, no / or \\ or control characters among them, "
                "and no dot in front"
            )
        return name

    @field_validator("vary", mode="before")
    @classmethod
    def _check_factors(cls, vary: Any) -> Any:
        if not isinstance(vary, Mapping):
            raise ValueError("fields and their values are needed, as {network.width: [8, 16]}")
        for key, values in vary.items():
            check_factor(key, values)
        return vary

    @model_validator(mode="after")
    def _check(self) -> Self:
        accept = self.measurement.accept
        target = max((self.search.target, *self.search.targets))
        if accept is not None and accept < target:
            raise ValueError(
                f"measurement.accept: at least search.target ({target}) is needed, not {accept}"
            )
        return self

    @property
    def configurations(self) -> Sequence[NamedConfiguration]:
        """In the order of the table. Raises UserError if a value is not allowed or there twice, two
        factors set one field, two configurations are the same or have the same name, or there are
        more than MOST_CONFIGURATIONS."""
        return self._configurations

    @cached_property
    def _configurations(self) -> tuple[NamedConfiguration, ...]:
        """Kept beside the fields: pydantic leaves names like this one out of everything, but of a
        copy, whose fields may differ (see `__copy__`)."""
        count = math.prod(len(values) for values in self.vary.values())
        if count > MOST_CONFIGURATIONS:
            raise UserError(
                f"{self.name}: vary: {count:,} configurations, "
                f"and at most {MOST_CONFIGURATIONS:,} are swept at once"
            )
        self._check_fields()
        choices = [choices_of(key, values) for key, values in self.vary.items()]
        chosen = list(itertools.product(*choices))
        if not chosen:
            raise UserError(f"{self.name}: vary: every factor needs a value or more")
        configurations = [self._named(choice) for choice in chosen]
        self._check_told_apart(chosen, configurations)
        return tuple(configurations)

    def __copy__(self) -> Self:
        copied = super().__copy__()
        copied.__dict__.pop("_configurations", None)
        return copied

    @property
    def factor_names(self) -> dict[str, str]:
        """Key of `vary` → name of the factor, in the order of `vary`.

        That is the last word of a field's path, or so many of its last words that no two factors
        have the same name. Raises UserError for a factor of named values that is called as
        something is that every trial has.
        """
        for key, values in self.vary.items():
            if key in OF_A_TRIAL and isinstance(values, dict):
                raise UserError(
                    f"{self.name}: vary.{key}: every trial has a {key}; "
                    "call the factor something else"
                )
        words = {
            key: [key] if isinstance(values, dict) else key.split(".")
            for key, values in self.vary.items()
        }
        n_words = dict.fromkeys(words, 1)  # that the name of each factor has so far
        while True:
            names = {key: ".".join(words[key][-count:]) for key, count in n_words.items()}
            uses = Counter([*names.values(), *OF_A_TRIAL])
            ambiguous = [key for key, name in names.items() if uses[name] > 1]
            extensible = [key for key in ambiguous if n_words[key] < len(words[key])]
            if not extensible:
                return names
            for key in extensible:
                n_words[key] += 1

    def _named(self, chosen: Sequence[Choice]) -> NamedConfiguration:
        """The configuration of one choice for each factor."""
        fields = {path: value for choice in chosen for path, value in choice.fields.items()}
        try:
            configuration = with_fields(self.base, fields)
        except UserError as error:
            raise UserError(f"{self.name}: vary: {error}") from None
        names, factors = self.factor_names, {}
        for key, value, _ in chosen:
            is_given = isinstance(self.vary[key], dict) or isinstance(value, dict)
            # of a field, the value that it has come to: 1e-2 and 0.01 have one name
            factors[names[key]] = value if is_given else _field(configuration, key)
        name = ",".join(f"{factor}={text_of(value)}" for factor, value in factors.items()) or "base"
        return NamedConfiguration(name=name, factors=factors, configuration=configuration)

    def _check_told_apart(
        self, chosen: Sequence[Sequence[Choice]], configurations: Sequence[NamedConfiguration]
    ) -> None:
        """Raises UserError, naming both, if two configurations are the same or have one name."""
        first: dict[str, int] = {}  # by name, and by content
        for number, named in enumerate(configurations):
            content = key_of(named.configuration.model_dump(mode="json"))
            twin = first.setdefault(content, number)
            namesake = first.setdefault(named.name, number)
            if twin == namesake == number:
                continue
            if configurations[twin].name != named.name:
                both = f"{configurations[twin].name} and {named.name}"
                raise UserError(f"{self.name}: vary: {both} are the same; leave one out")
            pairs = zip(chosen[namesake], chosen[number], strict=True)
            key, one, other = next(
                (a.key, *values)
                for a, b in pairs
                if (values := (json.dumps(a.value), json.dumps(b.value)))[0] != values[1]
            )
            what = "leave one out" if twin != number else "name them, as {one: {PATH: VALUE}, …}"
            raise UserError(
                f"{self.name}: vary: {key}: {one} and {other} are both called {named.name}; {what}"
            )

    def _check_fields(self) -> None:
        """Raises UserError if two factors set one field, or one sets a field of a group that the
        other sets as a whole, or a field that is one for all configurations."""
        paths = {key: self.paths_of(key) for key in self.vary}
        for path in sorted(self._varied):
            section = path.partition(".")[0]
            if section in OF_ALL:
                raise UserError(
                    f"{self.name}: vary: {path}: {section} is one for all configurations, and can't "
                    "be varied"
                )
        for (a, ours), (b, theirs) in itertools.combinations(paths.items(), 2):
            for path, other in itertools.product(sorted(ours), sorted(theirs)):
                inner, outer = (path, other) if len(path) >= len(other) else (other, path)
                if f"{inner}.".startswith(f"{outer}."):
                    raise UserError(
                        f"{self.name}: vary: {a} and {b} both set {inner}; leave it to one of them"
                    )

    def paths_of(self, key: str) -> set[str]:
        """Of the fields that a factor sets."""
        values = self.vary[key]
        if isinstance(values, dict):
            return {path for fields in values.values() for path in fields}
        return {key}

    @property
    def _varied(self) -> set[str]:
        """Paths of all fields that differ between the configurations."""
        return set().union(*map(self.paths_of, self.vary))

    @property
    def images(self) -> Literal["none", "generated", "pairs"]:
        """Which pictures leave the storage: what is asked for; without that, none of private
        data."""
        is_private = any(named.configuration.data.holds_private for named in self.configurations)
        return self.tracking.images or ("none" if is_private else "pairs")

    def with_settings(self, settings: Mapping[str, Any]) -> "SearchSpace":
        """The space with fields set by path: `network.width`, `measurement.n_samples`,
        `search.n_high`, …

        Raises UserError for an unknown path, a value that is not allowed, a field that the space
        varies, or an early accept that could never happen. (Sweeps that were made with such a one
        can still be read.)
        """
        varied = sorted(
            field
            for field, path in itertools.product(self._varied, settings)
            if f"{field}.".startswith(f"{path}.") or path.startswith(f"{field}.")
        )
        if varied:
            raise UserError(
                f"{varied[0]}: {self.name} varies this field; "
                "leave it out, or take a space that does not vary it"
            )
        changes: dict[str, dict[str, Any]] = {
            "measurement": {}, "search": {}, "tracking": {}, "base": {}
        }  # fmt: skip
        for path, value in settings.items():
            section, _, rest = path.partition(".")
            if section in changes and rest:
                changes[section][rest] = value
            else:  # network.width is base.network.width
                changes["base"][path] = value
        changed = {}
        for section, fields in changes.items():
            if fields:
                prefix = "" if section == "base" else f"{section}."
                changed[section] = with_fields(getattr(self, section), fields, prefix, settable())
        space = validated(SearchSpace, {**dict(self), **changed})
        assert space.configurations  # every combination is valid, or raises
        how = space.measurement
        if how.n_selection < how.n_selection_to_accept:
            raise UserError(
                f"measurement.n_selection: at least {how.n_selection_to_accept} images are needed "
                f"to show R_mem above measurement.accept={how.accept:.4g}, not {how.n_selection}"
            )
        return space


@cache
def settable() -> tuple[Listed, ...]:
    """Every field that `--set` and `vary` take; of `vary` only those of a configuration."""
    return (
        *fields_of(Configuration),
        *fields_of(Measurement, "measurement"),
        *fields_of(Search, "search"),
        *fields_of(Tracking, "tracking"),
    )


def all_fields() -> list[Listed]:
    """The same, and before them those that only the file of a space has."""
    of_files = [one for one in fields_of(SearchSpace) if one.section in ("", "expected")]
    return [*(replace(one, section=one.section or "space") for one in of_files), *settable()]


def _field(configuration: Configuration, path: str) -> Any:
    """A field's value by its dotted path, and 1 for 1.0: a field of real numbers may be given
    either."""
    value: Any = configuration.model_dump()
    for name in path.split("."):
        value = value[name]
    is_whole = isinstance(value, float) and value.is_integer() and abs(value) < 1e15
    return int(value) if is_whole else value
