"""What an audit tells of every generated image, and what it hints at; by hand, in float64."""

import csv
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sweep.audit.compare import Audit, audit
from sweep.audit.figure import histogram
from sweep.audit.image_sets import open_set
from sweep.audit.mirrored import Mirrored, nearer_of
from sweep.cli.main import main
from trainables.config.data import Digits
from trainables.data.sources import load
from trainables.measure.neighbours import nearest_two
from trainables.measure.r_mem import Neighbours

DIGITS = load(Digits()).images[:, 0]  # [1797, 8, 8]
TRAINING, FRESH = DIGITS[:60], DIGITS[100:140]


def saved(path: Path, images: Any) -> Path:
    np.save(path, images)
    return path


def compared(tmp_path: Path, training: Any, generated: Any, *held_out: Any, **how: Any) -> Audit:
    paths = [
        saved(tmp_path / f"{name}.npy", images)
        for name, images in zip("tgh", (training, generated, *held_out), strict=False)
    ]
    sets = [open_set(f"--{path.stem}", path) for path in paths]
    return audit(sets[0], sets[1], sets[2] if held_out else None, 1 / 3, **how)


def run(capsys: pytest.CaptureFixture[str], *arguments: Any) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(["audit", *map(str, arguments)])
    printed = capsys.readouterr()
    return int(str(ended.value.code)), printed.out, printed.err


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_table_has_a_row_for_every_generated_image(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    generated = np.concatenate([TRAINING[[7, 3]], FRESH, TRAINING[[9]].clip(0, 250)])
    train, made, out = (tmp_path / name for name in ("t.npy", "g.npy", "new/every.csv"))
    saved(train, TRAINING), saved(made, generated)
    code, text, _ = run(capsys, "--train", train, "--generated", made, "--csv", out, "--json")
    found, table = json.loads(text), rows(out)
    assert code == 0
    assert list(table[0]) == ["position", "image", "nearest", "second", "d1", "d2", "copy"]
    distances = np.linalg.norm(
        (generated[:, None].astype(float) - TRAINING[None]).reshape(len(generated), 60, -1), axis=2
    )
    order = distances.argsort(axis=1)
    assert [row["position"] for row in table] == [str(i) for i in range(43)]
    assert [row["image"] for row in table] == [f"[{i}]" for i in range(43)]
    for place, (name, distance) in enumerate((("nearest", "d1"), ("second", "d2"))):
        assert [row[name] for row in table] == [f"[{i}]" for i in order[:, place]]
        known = np.take_along_axis(distances, order[:, [place]], axis=1)[:, 0]
        np.testing.assert_allclose([float(row[distance]) for row in table], known, rtol=1e-12)
    copies = [row["copy"] == "yes" for row in table]
    assert all(copies[place] for place in (0, 1, -1))
    assert sum(copies) == found["n_memorized"]
    assert {row["copy"] for row in table} == {"yes", "no"}


def test_names_in_the_table_are_no_formulas(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, images in (("t", TRAINING[:4]), ("g", TRAINING[:2])):
        (tmp_path / name).mkdir()
        for i, image in enumerate(images):
            Image.fromarray(image).save(tmp_path / name / f"=cmd{i},a.png")
    run(
        *(capsys, "--train", tmp_path / "t", "--generated", tmp_path / "g"),
        *("--csv", tmp_path / "x.csv"),
    )
    assert [row["image"] for row in rows(tmp_path / "x.csv")] == ["'=cmd0,a.png", "'=cmd1,a.png"]
    assert rows(tmp_path / "x.csv")[0]["nearest"] == "'=cmd0,a.png"


def test_features_have_columns_of_their_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [
        saved(tmp_path / f"{name}.npy", images)
        for name, images in (("t", DIGITS[:80]), ("g", DIGITS[70:100]), ("h", DIGITS[100:400]))
    ]
    sets = ("--train", paths[0], "--generated", paths[1], "--holdout", paths[2])
    eye = ("--features", "tests.eyes:spectrum", "--csv", tmp_path / "x.csv", "--json")
    found, table = json.loads(run(capsys, *sets, *eye)[1]), rows(tmp_path / "x.csv")
    copies = sum(row["copy_in_features"] == "yes" for row in table)
    assert copies == round(found["r_mem_features"] * 30)
    assert copies > 0
    assert float(table[0]["d1_in_features"]) == pytest.approx(0, abs=1e-3)
    assert table[0]["nearest_in_features"] == "[70]"
    few = saved(tmp_path / "h.npy", DIGITS[100:120])
    run(capsys, *sets[:-1], few, *eye)
    assert {row["copy_in_features"] for row in rows(tmp_path / "x.csv")} == {""}, "not known"


@pytest.mark.parametrize("file", ["table.txt", "sub.csv", "t.npy/x.csv"])
def test_a_table_that_cannot_be_written_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], file: str
) -> None:
    (tmp_path / "sub.csv").mkdir()
    train = saved(tmp_path / "t.npy", TRAINING)
    code, _, error = run(capsys, "--train", train, "--generated", train, "--csv", tmp_path / file)
    assert (code, error.count("\n")) == (2, 1)
    assert error.startswith(f"emm: error: --csv {tmp_path / file}: ")


# ---------------------------------------------------------------- hints


def test_mirrored_copies_are_hinted_at(tmp_path: Path) -> None:
    """Equal training images are one, whichever way they are turned; as many as --flips then finds."""
    training = np.concatenate([TRAINING, TRAINING[:10]])
    generated = np.concatenate([TRAINING[:25, :, ::-1], TRAINING[20:40], FRESH])
    plain = compared(tmp_path, training, generated)
    flips = compared(tmp_path, training, generated, flips=True)
    more = flips.distances.found.memorized() & ~plain.distances.found.memorized()
    assert plain.mirrored == Mirrored(len(generated), int(more.sum()))
    assert more.sum() >= 15
    (hint,) = plain.as_json()["hints"]
    assert hint.startswith(f"--flips would find {more.sum()} more copies among 85 generated")
    assert (flips.mirrored, flips.as_json()["hints"]) == (None, [])
    assert plain.as_json()["mirrored"] == {"n": 85, "more": int(more.sum())}


def test_the_nearest_of_both_ways_are_those_of_flips() -> None:
    import torch

    training = torch.from_numpy(
        np.concatenate([TRAINING[:30], TRAINING[:8], TRAINING[:8, :, ::-1]])
    )
    samples = torch.from_numpy(np.concatenate([FRESH, TRAINING[:8]]))
    training, samples = training[:, None], samples[:, None]
    _, groups = np.unique(training.flatten(1).numpy(), axis=0, return_inverse=True)
    both = nearest_two(samples, training, groups=groups, flips=True)
    either = nearer_of(
        nearest_two(samples, training, groups=groups),
        nearest_two(samples.flip(-1), training, groups=groups),
        groups,
    )
    np.testing.assert_array_equal(either.d1, both.d1)
    np.testing.assert_array_equal(either.d2, both.d2)


def test_an_equal_image_is_no_second_neighbour_either_way() -> None:
    """Images 0 and 1 are equal: one is nearest to the image, the other to its mirror image."""
    a, b = (
        Neighbours(*(np.array([one]) for one in near))
        for near in ((2.0, 9.0, 0, 2), (1.0, 8.0, 1, 3))
    )
    either = nearer_of(a, b, np.array([0, 0, 1, 2]))
    assert [x.tolist() for x in (either.d1, either.d2, either.i1, either.i2)] == [
        *([1.0], [8.0], [1], [3])
    ]


@pytest.mark.parametrize(
    ("n", "more", "is_told"), [(85, 1, False), (85, 2, True), (2000, 19, False), (2000, 20, True)]
)
def test_a_few_that_look_alike_both_ways_are_no_hint(n: int, more: int, is_told: bool) -> None:
    assert (Mirrored(n, more).hint is not None) == is_told


def test_no_mirrored_copies_no_hint(tmp_path: Path) -> None:
    assert compared(tmp_path, TRAINING, np.concatenate([TRAINING[:20], FRESH])).hints == []


def test_the_training_images_given_as_generated_are_noticed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train = saved(tmp_path / "t.npy", TRAINING)
    (tmp_path / "link.npy").symlink_to(train)
    same = "hint: --generated and --train are the same files: nothing is told of a model"
    for made in (train, tmp_path / "link.npy", os.path.relpath(train)):
        assert same in run(capsys, "--train", train, "--generated", made)[1]
    copy = saved(tmp_path / "g.npy", TRAINING[:9])
    text = run(capsys, "--train", train, "--generated", copy)[1]
    assert "hint: every generated image equals a training image, pixel by pixel" in text
    nearly = saved(tmp_path / "g.npy", np.concatenate([TRAINING[:9], FRESH[:1]]))
    assert "hint" not in run(capsys, "--train", train, "--generated", nearly)[1]


# ---------------------------------------------------------------- how it is drawn


def test_the_histogram_has_the_held_out_images_beside(tmp_path: Path) -> None:
    """Shares: a fifth of what is generated are copies at 0, and none of what is held out."""
    generated = np.concatenate([TRAINING[:10], FRESH])
    found = compared(tmp_path, TRAINING, generated, DIGITS[200:300])
    (axes,) = histogram(found).axes
    bars = [bar.get_height() for bar in axes.patches[:50]]
    assert bars[0] == pytest.approx(10 / 50)
    assert sum(bars) == pytest.approx(1)
    (outline,) = axes.patches[50:]
    assert max(outline.get_xy()[:3, 1]) == 0
    near = found.distances.null
    assert isinstance(near, Neighbours)
    heights = np.histogram(near.d1 / near.d2, 50, (0, 1))[0] / 100
    assert max(outline.get_xy()[:, 1]) == pytest.approx(max(heights))
    assert axes.lines[0].get_xdata()[0] == pytest.approx(1 / 3)
    names = [text.get_text() for text in axes.get_legend().get_texts()]
    assert names == ["generated images", "held-out images", "k = 0.3333: below, copies"]
    alone = histogram(compared(tmp_path, TRAINING, generated)).axes[0]
    assert len(alone.patches) == 50
