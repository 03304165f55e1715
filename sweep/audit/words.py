"""What an audit found, in lines for people: printed by the command, and at the head of its page."""

from typing import Any

from trainables.measure.feature_rule import LEAST_HELD_OUT


def lines(found: dict[str, Any]) -> list[str]:
    """`found`: the content of `emm audit --json`."""
    n, copies, high = found["n_samples"], found["n_memorized"], found["r_mem_high"]
    texts = [
        f"no copy among {n:,} generated images: this excludes only shares above "
        f"{high:.2%} (95 %, Clopper-Pearson)"
    ]
    if copies:
        texts = [
            f"copies: {copies:,} of {n:,} generated images, {copies / n:.2%}; "
            f"at least {found['r_mem_low']:.2%} and at most {high:.2%} "
            "(95 % each, Clopper-Pearson)",
            f"{found['distinct_copied']:,} different training images of {found['n_training']:,} "
            "were copied; "
            f"copying all alike would give {found['distinct_expected']:,.1f}",
        ]
    texts.append(
        f"median distance to the nearest training image {found['median_d1']:.1f}; "
        f"between neighbours of the training set {found['nn_distance']:.1f} "
        "(pixel values 0-255, L2)"
    )
    if found["spurious"] is not None:
        null = ""
        if found["spurious_null"] is not None:
            null = f" ({found['spurious_null']:.2%} of held-out images)"
        texts.append(
            f"no copies, but made repeatedly: {found['spurious']:.2%}{null}; "
            f"new: {found['generalized']:.2%}"
        )
    notes = [f"note: {note}" for note in found["notes"]]
    notes += [f"hint: {hint}" for hint in found["hints"]]
    return texts + _control(found) + _in_features(found) + _duplicates(found) + notes


def _in_features(found: dict[str, Any]) -> list[str]:
    if found["features"] is None:
        return []
    share, n = found["r_mem_features"], found["null_samples"]
    if share is None:
        return [
            f"warning: in features nothing is known: {LEAST_HELD_OUT} held-out images or more are "
            f"needed, and there are {n:,}"
        ]
    score = "d1 / d2" if found["features_rule"] == "ratio" else "d1"
    return [
        f"in features ({found['features']}): {share:.2%} of the generated images are copies, with "
        f"{score} below {found['features_threshold']:.4f}; so would {found['features_null']:.2%} of "
        "the held-out images be that did not set this threshold"
    ]


def _control(found: dict[str, Any]) -> list[str]:
    left_out = found["null_in_training"]
    if found["null_rate"] is None and left_out:
        return [
            f"warning: all {left_out:,} held-out images are training images: there is no control"
        ]
    if found["null_rate"] is None:
        return ["no --holdout given: how many copies would be counted by chance is not known"]
    counted = f"{found['null_rate']:.2%} of {found['null_samples']:,} held-out images"
    text = f"control: {counted} would count as copies"
    texts = [
        f"{text}; C_T {found['c_t']:.1f} (far below 0: generated images lie nearer to training "
        "images than they do)",
        *_against(found),
    ]
    if left_out:
        texts.append(
            f"note: {left_out:,} held-out images are training images: they are no control, and "
            "were left out of it"
        )
    return texts


def _against(found: dict[str, Any]) -> list[str]:
    """What tells generated images from held-out ones, by no k."""
    texts = [
        "nearer to training than to as many held-out images: not known, there are fewer of these"
    ]
    if found["nearer_training"] is not None:
        texts = [
            f"nearer to training than to as many held-out images: {found['nearer_training']:.2%} "
            "of generated images (50 % where nothing is copied)"
        ]
    texts.append(
        "farther from their nearest training image than it is from its own nearest (authentic): "
        f"{found['authentic']:.2%} ({found['authentic_null']:.2%} of held-out images)"
    )
    if found["calibrated"] is not None:
        texts.append(
            "nearer to training images, for how dense these are, than 99 % of held-out images: "
            f"{found['calibrated']:.2%}"
        )
    return texts


def _duplicates(found: dict[str, Any]) -> list[str]:
    equal, near = (sum(map(len, found[name])) for name in ("duplicates", "near_duplicates"))
    texts = []
    if equal:
        plain = f"if each stood for itself, {found['r_mem_plain']:.2%} would be copies"
        texts.append(
            f"warning: {equal:,} training images are equal to another one; they are taken as one "
            f"({plain})"
        )
    if near:
        among = (
            f"{near:,} training images (of {found['looked_at']:,} looked at, and their neighbours)"
        )
        texts.append(
            f"warning: {among} are nearly equal to another one; copies of them may go unseen"
        )
    return texts
