"""Labels that the images are conditioned on."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from trainables.config.identity import Frozen


class NoLabels(Frozen):
    """Unconditional: the labels of the data, if any, only balance the subsets."""

    kind: Literal["none"] = "none"


class TrueLabels(Frozen):
    """The classes of the data."""

    kind: Literal["true"] = "true"


class RandomLabels(Frozen):
    """One of `classes` labels for every image, drawn uniformly, whatever its true class is."""

    kind: Literal["random"] = "random"
    classes: int = Field(10, ge=1, le=1_000_000, description="number of labels C")


class UniqueLabels(Frozen):
    """A label of its own for every training image."""

    kind: Literal["unique"] = "unique"


def _true_is_a_word(labels: Any) -> Any:
    """JSON and YAML read `true` as a boolean; as a kind of labels it is a word."""
    if isinstance(labels, dict) and labels.get("kind") is True:
        return {**labels, "kind": "true"}
    return labels


Labels = Annotated[
    Annotated[NoLabels | TrueLabels | RandomLabels | UniqueLabels, Field(discriminator="kind")],
    BeforeValidator(_true_is_a_word),
]
