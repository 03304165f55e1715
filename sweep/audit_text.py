"""What an audit found, in lines for people: printed by the command, and at the head of its page."""

from typing import Any

from sweep.copies import Audit

SHOWN = 10  # copied images that are printed; --json and the page have all


def lines(found: Audit) -> list[str]:
    content = found.as_json()
    copied = [f"  {one['image']}: {one['copies']} copies" for one in content["copied"]]
    return [
        *_copies(content),
        f"median distance to the nearest training image {content['median_d1']:.1f}; "
        f"between neighbours of the training set {content['nn_distance']:.1f} (pixel values 0-255, L2)",
        *_control(content),
        *_shares(content),
        *_duplicates(content),
        *(f"note: {note}" for note in content["notes"]),
        *(["copied most often:"] if copied else []),
        *copied[:SHOWN],
        *([f"  and {len(copied) - SHOWN:,} more"] if len(copied) > SHOWN else []),
    ]


def _copies(content: dict[str, Any]) -> list[str]:
    n, copies, high = content["n_samples"], content["n_memorized"], content["r_mem_high"]
    if not copies:
        return [f"no copy among {n:,} generated images: this excludes only shares above {high:.2%} (95 %, Clopper-Pearson)"]
    return [
        f"copies: {copies:,} of {n:,} generated images, {copies / n:.2%}; "
        f"at least {content['r_mem_low']:.2%} and at most {high:.2%} (95 % each, Clopper-Pearson)",
        f"of {content['distinct_copied']:,} different training images; copies of all alike would be of "
        f"{content['distinct_expected']:,.1f} of the {content['n_training']:,}",
    ]


def _control(content: dict[str, Any]) -> list[str]:
    if content["null_rate"] is None:
        return ["no --holdout given: how many copies would be counted by chance is not known"]
    texts = [
        f"control: {content['null_rate']:.2%} of {content['null_samples']:,} held-out images would count as copies; "
        f"C_T {content['c_t']:.1f} (far below 0: generated images lie nearer to the training set than held-out ones)",
    ]
    if content["null_in_training"]:
        texts.append(f"warning: {content['null_in_training']:,} held-out images are training images: they are no control")
    return texts


def _shares(content: dict[str, Any]) -> list[str]:
    if content["spurious"] is None:
        return []
    return [f"the others: {content['spurious']:.2%} no copies but made repeatedly, {content['generalized']:.2%} new"]


def _duplicates(content: dict[str, Any]) -> list[str]:
    texts = []
    for what, groups in (("equal", content["duplicates"]), ("nearly equal", content["near_duplicates"])):
        if groups:
            members = sum(map(len, groups))
            texts.append(f"warning: {members:,} training images are {what} to another one, in {len(groups):,} groups, such as")
            texts += ["  " + ", ".join(group[:4]) + (", ..." if len(group) > 4 else "") for group in groups[:3]]
    if content["near_duplicates"]:
        texts.append("copies of nearly equal images may go unseen: the second nearest image is as near as the nearest")
    if content["duplicates"]:
        plain = f"{content['r_mem_plain']:.2%} of the images are copies by the rule that takes each by itself"
        texts.append(f"equal images are taken as one; {plain}")
    if content["looked_at"] < content["n_training"]:
        texts.append(f"nearly equal images were looked for among {content['looked_at']:,} of {content['n_training']:,}")
    return texts
