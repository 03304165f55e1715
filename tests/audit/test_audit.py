"""`emm audit`, from outside: image sets whose copies are known, in every form that they may come
in."""

import base64
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sweep.audit import compare as copies_module, page as page_module
from sweep.audit.compare import audit, equal_groups, exact_bounds, spread
from sweep.audit.image_sets import open_set
from sweep.audit.page import write_page
from sweep.audit.words import lines
from sweep.cli.main import main
from trainables.config.data import Digits, Folder
from trainables.config.measurement import Measurement
from trainables.data.images import resized
from trainables.data.sources import load
from trainables.errors import UserError
from trainables.measure.features import FeatureBank, open_features

ROOT = Path(__file__).parents[2]
DIGITS = (
    load(Digits()).images[np.random.default_rng(0).permutation(1797)].transpose(0, 2, 3, 1)
)  # [1797, 8, 8, 1]
TRAINING, HELD_OUT, FRESH = DIGITS[:300], DIGITS[300:800], DIGITS[800:]


def generator(share, n, seed, training=TRAINING):
    """What a model makes that copies, with some noise, with probability `share`, and else has drawn
    anew."""
    rng = np.random.default_rng(seed)
    copies = rng.random(n) < share
    new = FRESH[rng.permutation(len(FRESH))[:n]]
    noisy = (
        (training[rng.integers(0, len(training), n)] + rng.normal(0, 4, new.shape))
        .round()
        .clip(0, 255)
    )
    return np.where(copies[:, None, None, None], noisy, new).astype(np.uint8), int(copies.sum())


def saved(path, images):
    np.save(path, images)
    return path


def folder(path, images, suffix="png"):
    path.mkdir(parents=True)
    for i, image in enumerate(images):
        Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image).save(
            path / f"{i:05}.{suffix}"
        )
    return path


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as ended:
        main(["audit", *map(str, arguments)])
    assert ended.value.code == 0
    return capsys.readouterr().out


def compared(training, generated, held_out=None, k=1 / 3, **options):
    sets = open_set("--train", training), open_set("--generated", generated)
    return audit(*sets, None if held_out is None else open_set("--holdout", held_out), k, **options)


# ---------------------------------------------------------------- what it finds


@pytest.mark.parametrize("share", [0.0, 0.02, 0.3, 0.9, 1.0])
def test_the_share_of_copies_is_between_the_bounds(tmp_path, capsys, share):
    """Real digits: every copy is found, none of the new images counts, and held-out images show
    it."""
    generated, copies = generator(share, 900, seed=1)
    paths = [
        saved(tmp_path / name, x)
        for name, x in (("t.npy", TRAINING), ("g.npy", generated), ("h.npy", HELD_OUT))
    ]
    found = json.loads(
        run(capsys, "--train", paths[0], "--generated", paths[1], "--holdout", paths[2], "--json")
    )
    assert found["n_memorized"] == pytest.approx(copies, abs=0.01 * 900)
    assert found["r_mem_low"] <= share <= found["r_mem_high"]
    assert (found["n_samples"], found["null_samples"], found["n_training"]) == (900, 500, 300)
    assert found["null_rate"] <= 0.01
    assert sum(one["copies"] for one in found["copied"]) == found["n_memorized"]
    assert len(found["copied"]) == found["distinct_copied"]
    assert found["c_t"] < -20 if share >= 0.9 else found["c_t"] > -20
    if share == 0:
        assert abs(found["c_t"]) < 3
        assert found["holdout_ratio"] == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize(
    ("copies", "n", "low", "high"),
    # binomial tails: (1 − p)ⁿ = 0.05, pⁿ = 0.05, and Clopper and Pearson 1934 for 5 of 10 at 90 %
    [
        (0, 2000, 0.0, 1 - 0.05 ** (1 / 2000)),
        (2000, 2000, 0.05 ** (1 / 2000), 1.0),
        (5, 10, 0.2224, 0.7776),
    ],
)
def test_bounds_are_exact(copies, n, low, high):
    assert exact_bounds(copies, n) == pytest.approx((low, high), abs=5e-5)


def test_no_copy_excludes_only_so_much(tmp_path, capsys):
    generated = np.tile(FRESH, (3, 1, 1, 1))[:2000]
    paths = [
        saved(tmp_path / name, x)
        for name, x in (("t.npy", TRAINING), ("g.npy", generated[:, ::-1, ::-1]))
    ]
    text = run(capsys, "--train", paths[0], "--generated", paths[1])
    assert (
        "no copy among 2,000 generated images: this excludes only shares above 0.15 %"
        in text.replace("%", " %")
    )
    assert "no --holdout" in text


def test_which_images_were_copied(tmp_path, capsys):
    generated = np.concatenate([TRAINING[[7] * 5 + [3] * 2], FRESH[:20]])
    train, made = folder(tmp_path / "train", TRAINING[:20]), folder(tmp_path / "made", generated)
    found = json.loads(run(capsys, "--train", train, "--generated", made, "--json"))
    assert found["copied"] == [
        {"image": "00007.png", "copies": 5},
        {"image": "00003.png", "copies": 2},
    ]
    assert "00007.png: 5 copies" in run(capsys, "--train", train, "--generated", made)


def test_forms_and_pieces_do_not_matter(tmp_path, monkeypatch):
    """Folders, subfolders, .npy, .npz, channels first; in pieces of two images or all at once."""
    monkeypatch.setattr(copies_module, "N_OTHERS", 30)
    training = TRAINING[:50]
    generated, _ = generator(0.4, 40, 2, training)
    (tmp_path / "deep").mkdir()
    folder(tmp_path / "train" / "a", training[:20])
    folder(tmp_path / "train" / "b", training[20:], "bmp")
    made = folder(tmp_path / "made", generated)
    held = saved(tmp_path / "held.npy", HELD_OUT[:30, :, :, 0])
    np.savez(tmp_path / "train.npz", labels=np.arange(50), images=training)
    np.savez(tmp_path / "made.npz", generated.transpose(0, 3, 1, 2))
    one = compared(tmp_path / "train", made, held)
    contents = []
    for other in (
        one,
        compared(tmp_path / "train", made, held, memory=1),
        compared(
            saved(tmp_path / "train.npy", training), tmp_path / "made.npz", held, memory=2**19
        ),
        compared(tmp_path / "train.npz", saved(tmp_path / "made.npy", generated), held),
    ):
        np.testing.assert_array_equal(other.distances.found.d1, one.distances.found.d1)
        np.testing.assert_array_equal(other.distances.found.i1, one.distances.found.i1)
        np.testing.assert_array_equal(other.distances.repeats, one.distances.repeats)
        content = other.as_json()
        contents.append(
            {name: content[name] for name in ("r_mem", "spurious", "median_d1", "n_memorized")}
        )
    assert contents == contents[:1] * 4
    assert one.as_json()["n_memorized"] > 5
    looked_at = set(spread(40, 30).tolist())
    for found, images, among in (
        (one.distances.repeats, generated, looked_at),
        (one.distances.null_repeats, HELD_OUT[:30], range(30)),
    ):
        x = images.astype(float)
        by_hand = [min(np.linalg.norm(x[i] - x[j]) for j in among if j != i) for i in range(len(x))]
        np.testing.assert_allclose(found, by_hand)


def test_duplicates_are_one_image_and_reported(tmp_path):
    """The plain rule can't see copies of a doubled image; copies of nearly equal ones go unseen,
    and that is said."""
    training = TRAINING[:60].copy()
    training[[10, 20, 30]] = training[5]
    training[25] = training[7]
    training[40] = training[41].clip(1) - 1
    copies = [training[[5] * 4], training[[7] * 2], training[[50] * 3], training[[41]]]
    generated = np.concatenate([*copies, FRESH[:10]])
    one = compared(saved(tmp_path / "t.npy", training), saved(tmp_path / "g.npy", generated))
    found = one.as_json()
    assert found["r_mem"] == pytest.approx(9 / 20, abs=0.051)
    assert found["r_mem_plain"] == pytest.approx(found["r_mem"] - 6 / 20)
    assert sorted(found["duplicates"]) == [["[5]", "[10]", "[20]", "[30]"], ["[7]", "[25]"]]
    assert ["[40]", "[41]"] in found["near_duplicates"]
    assert found["looked_at"] == 60
    assert found["distinct_expected"] == pytest.approx(
        56 * (1 - (1 - 1 / 56) ** found["n_memorized"])
    ), "56 different images"


def test_mirrored_copies(tmp_path, monkeypatch):
    paths = saved(tmp_path / "t.npy", TRAINING), saved(tmp_path / "g.npy", TRAINING[:50, :, ::-1])
    plain, mirrored = compared(*paths).as_json(), compared(*paths, flips=True).as_json()
    assert mirrored["r_mem"] == 1
    assert plain["r_mem"] < 0.5
    twice = saved(tmp_path / "twice.npy", np.concatenate([FRESH[:20], FRESH[:20, :, ::-1]]))
    monkeypatch.setattr(copies_module, "N_OTHERS", 40)
    found = compared(paths[0], twice, twice, flips=True)
    assert found.as_json()["generalized"] == 0, "each image is made again, mirrored"
    assert not found.distances.null_repeats.any(), "and so is each of these held-out images"


def test_other_sizes_and_colours(tmp_path, capsys):
    large = resized(TRAINING[:10].transpose(0, 3, 1, 2), 16)
    generated = np.repeat(large, 3, axis=1).transpose(0, 2, 3, 1)  # in colour
    train, made = folder(tmp_path / "train", TRAINING), folder(tmp_path / "made", generated)
    found = json.loads(
        run(capsys, "--train", train, "--generated", made, "--resolution", 16, "--json")
    )
    assert (found["r_mem"], found["median_d1"]) == (1, 0)
    assert found["notes"] == [
        "--train: 300 images; 300 grey, the same in all three colours (00000.png); 300 resized (00000.png)",
        "--generated: 10 images",
    ]


@pytest.mark.parametrize("set_in_colour", ["train", "made"])
def test_grey_first_and_colour_later(tmp_path, set_in_colour):
    """Compared in colour, whichever picture comes first; a grey one is the same in all colours."""
    colours = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3)).astype(np.uint8)
    train, made = folder(tmp_path / "train", TRAINING[:20]), folder(tmp_path / "made", TRAINING[:5])
    for i, image in enumerate(colours):
        Image.fromarray(image).save(tmp_path / set_in_colour / f"9{i}.png")
    found = compared(train, made).as_json()
    assert (found["n_memorized"], found["median_d1"]) == (5, 0)
    assert [note.split("; ")[1] for note in found["notes"]] == [
        "20 grey, the same in all three colours (00000.png)",
        "5 grey, the same in all three colours (00000.png)",
    ]


def test_the_pictures_are_those_that_training_reads(tmp_path):
    """A copy of a picture that the camera turned, or that has transparent parts, is one; and all of
    it is said."""
    rng = np.random.default_rng(1)
    pixels, exif = rng.integers(0, 256, (12, 8, 8, 3)).astype(np.uint8), Image.Exif()
    exif[0x0112] = 6  # to be turned to the right
    train, made = folder(tmp_path / "train", pixels[2:]), tmp_path / "made" / "a"
    made.mkdir(parents=True)
    Image.fromarray(np.rot90(pixels[0]).copy()).save(train / "turned.png", exif=exif)
    clear = np.where(np.arange(8) < 3, 0, 255).astype(np.uint8) * np.ones((8, 1), np.uint8)
    Image.fromarray(np.dstack([pixels[1], clear])).save(train / "clear.png")
    Image.fromarray(pixels[0]).save(made / "0.jp2")
    Image.fromarray(np.where(clear[..., None] == 0, 255, pixels[1]).astype(np.uint8)).save(
        made / "1.png"
    )
    (tmp_path / "made" / "b").symlink_to(train)
    (made / "2.heic").write_text("")
    one = compared(train, tmp_path / "made")
    found = one.as_json()
    assert (found["n_samples"], found["n_memorized"], found["median_d1"]) == (14, 14, 0)
    assert [(one.training.name(i), n) for i, n in one.copied][:2] == [
        ("clear.png", 2),
        ("turned.png", 2),
    ]
    words = "1 turned as their EXIF orientation says ({0}turned.png); 1 with transparency, laid on white ({0}clear.png)"
    assert found["notes"] == [
        f"--train: 12 images; {words.format('')}",
        f"--generated: 14 images; left out: 1 .heic (a/2.heic); {words.format('b/')}",
    ]
    shown = load(Folder(path=str(train), resolution=8)).images
    np.testing.assert_array_equal(one.training.take(range(12)).numpy(), shown)


def test_what_an_array_was_taken_for_is_said(tmp_path):
    np.savez(tmp_path / "t.npz", images=TRAINING[:9, :, :, 0], z=np.arange(3))
    found = compared(
        tmp_path / "t.npz", saved(tmp_path / "g.npy", FRESH[:4].transpose(0, 3, 1, 2))
    ).as_json()
    assert found["notes"] == [
        "--train: 9 grey images of 8x8 pixels; the array images was taken, left out: z",
        "--generated: 4 grey images of 8x8 pixels",
    ]


def test_a_mapped_array_runs_no_code(tmp_path):
    class Payload:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "trace"),)

    for save, name in ((np.save, "t.npy"), (np.savez, "t.npz")):
        save(tmp_path / name, np.array([Payload()], dtype=object))
        with pytest.raises(UserError, match=r"Python objects.* may run code"):
            open_set("--train", tmp_path / name)
    assert not (tmp_path / "trace").exists()


def test_a_name_cannot_move_the_cursor(tmp_path, capsys):
    train, made = folder(tmp_path / "train", TRAINING[:20]), folder(tmp_path / "made", TRAINING[:5])
    (train / "00003.png").rename(train / "\x1b[2J\r3.png")
    shown = run(capsys, "--train", train, "--generated", made)
    assert "3.png: 1 copies" in shown
    assert shown.replace("\n", "").isprintable()


@pytest.mark.parametrize("flips", [False, True])
def test_held_out_images_that_were_trained_on_are_no_control(tmp_path, capsys, flips):
    """Mirrored ones neither, where mirrored copies count: the control is the same as without
    them."""
    trained = TRAINING[290:, :, ::-1] if flips else TRAINING[290:]
    held_out = {
        "h.npy": np.concatenate([trained, DIGITS[300:420]]),
        "only.npy": DIGITS[300:420],
        "none.npy": trained,
    }
    paths = {
        name: saved(tmp_path / name, x)
        for name, x in {"t.npy": TRAINING, "g.npy": FRESH[:50], **held_out}.items()
    }
    sets = [
        "--train",
        paths["t.npy"],
        "--generated",
        paths["g.npy"],
        *(["--flips"] if flips else []),
    ]

    def found(name):
        return json.loads(run(capsys, *sets, "--holdout", paths[name], "--k", "0.6", "--json"))

    mixed, only, none = map(found, held_out)
    assert (mixed["null_in_training"], only["null_in_training"], none["null_in_training"]) == (
        10,
        0,
        10,
    )
    assert (mixed["null_samples"], mixed["null_rate"], mixed["c_t"]) == (
        120,
        only["null_rate"],
        only["c_t"],
    )
    assert (none["null_samples"], none["null_rate"], none["holdout_ratio"]) == (0, None, None)
    assert "10 held-out images are training images" in run(
        capsys, *sets, "--holdout", paths["h.npy"]
    )
    assert "all 10 held-out images are training images" in run(
        capsys, *sets, "--holdout", paths["none.npy"]
    )


def test_many_held_out_images_are_thinned_evenly(tmp_path):
    assert spread(10, 4).tolist() == [0, 3, 6, 9]
    assert spread(3, 10).tolist() == [0, 1, 2]
    held_out = saved(
        tmp_path / "h.npy", np.concatenate([TRAINING[:1], HELD_OUT[:8], TRAINING[1:2]])
    )
    paths = saved(tmp_path / "t.npy", TRAINING), saved(tmp_path / "g.npy", FRESH[:4]), held_out
    found = compared(*paths, memory=1).as_json()  # room for two: the first and the last
    assert (found["null_in_training"], found["null_samples"]) == (2, 0)
    assert "--holdout: 2 of 10 images, evenly spread, were used" in found["notes"]


def test_equal_images_are_found_across_chunks():
    import torch

    images = torch.from_numpy(TRAINING[[0, 1, 0, 2, 1, 0]].copy())
    groups = equal_groups(iter(torch.split(images, 2)))
    assert [groups.tolist().index(group) for group in groups] == [0, 1, 0, 3, 1, 0]


def test_every_number_is_said_in_its_place():
    found = {
        "n_samples": 4000, "n_memorized": 1000, "n_training": 700, "r_mem_low": 0.23,
        "r_mem_high": 0.27, "r_mem_plain": 0.31, "distinct_copied": 55, "distinct_expected": 66.6,
        "median_d1": 12.3, "nn_distance": 45.6, "spurious": 0.11, "spurious_null": 0.02,
        "generalized": 0.64, "null_rate": 0.03, "null_samples": 1500, "c_t": -7.8,
        "nearer_training": 0.625, "authentic": 0.125, "authentic_null": 0.375, "calibrated": 0.25,
        "null_in_training": 9, "duplicates": [["a", "b"], ["c", "d", "e"]],
        "near_duplicates": [["f", "g", "h", "i"]], "looked_at": 600, "notes": ["a note"],
        "hints": ["a hint"],
        "features": "my:eye", "r_mem_features": 0.345, "features_threshold": 0.12345,
        "features_null": 0.012, "features_rule": "ratio",
    }  # fmt: skip
    assert lines(found) == [
        "copies: 1,000 of 4,000 generated images, 25.00%; at least 23.00% and at most 27.00% "
        "(95 % each, Clopper-Pearson)",
        "55 different training images of 700 were copied; copying all alike would give 66.6",
        "median distance to the nearest training image 12.3; between neighbours of the training "
        "set 45.6 (pixel values 0-255, L2)",
        "no copies, but made repeatedly: 11.00% (2.00% of held-out images); new: 64.00%",
        "control: 3.00% of 1,500 held-out images would count as copies; C_T -7.8 (far below 0: "
        "generated images lie nearer to training images than they do)",
        "nearer to training than to as many held-out images: 62.50% of generated images (50 % "
        "where nothing is copied)",
        "farther from their nearest training image than it is from its own nearest (authentic): "
        "12.50% (37.50% of held-out images)",
        "nearer to training images, for how dense these are, than 99 % of held-out images: 25.00%",
        "note: 9 held-out images are training images: they are no control, and were left out of it",
        "in features (my:eye): 34.50% of the generated images are copies, with d1 / d2 below "
        "0.1235; so would 1.20% of the held-out images be that did not set this threshold",
        "warning: 5 training images are equal to another one; they are taken as one (if each stood "
        "for itself, 31.00% would be copies)",
        "warning: 4 training images (of 600 looked at, and their neighbours) are nearly equal to "
        "another one; copies of them may go unseen",
        "note: a note",
        "hint: a hint",
    ]
    unknown = {
        "spurious": None,
        "null_rate": None,
        "null_in_training": 0,
        "notes": [],
        "hints": [],
        "features": None,
    }
    few = lines({**found, **unknown, "duplicates": [], "near_duplicates": [], "n_memorized": 0})
    assert few[0].endswith("this excludes only shares above 27.00% (95 %, Clopper-Pearson)")
    assert len(few) == 3
    small = lines({**found, "nearer_training": None, "calibrated": None})
    assert (
        "nearer to training than to as many held-out images: not known, there are fewer of these"
        in small
    )
    assert len(small) == len(lines(found)) - 1


def by_l2(a, b, flips=False):
    """[len(a), len(b)] distances of images."""
    a, b = (x.reshape(len(x), 8, 8).astype(float) for x in (a, b))
    views = [b, b[..., ::-1]][: 1 + flips]
    return np.min([np.linalg.norm(a[:, None] - y[None], axis=(2, 3)) for y in views], axis=0)


@pytest.mark.parametrize("memory", [1, 2**14, 2**28])
@pytest.mark.parametrize("flips", [False, True])
def test_against_held_out_images_by_hand(tmp_path, flips, memory):
    """Doubles of training images count once, and what is held out twice or was trained on after all
    is not in the pool: as many different images as there are different training images."""
    training = TRAINING[:40].copy()
    training[30:] = training[:10]
    trained = training[5:9, :, ::-1] if flips else training[5:9]
    held_out = np.concatenate([trained, HELD_OUT[:130], HELD_OUT[:20]])
    generated, _ = generator(0.5, 60, 3, training)
    paths = [
        saved(tmp_path / name, x)
        for name, x in (("t.npy", training), ("g.npy", generated), ("h.npy", held_out))
    ]
    whole = compared(*paths, flips=flips)
    found = compared(*paths, flips=flips, memory=memory).distances
    distinct, control = training[:30], HELD_OUT[:130]
    own, near = by_l2(distinct, distinct, flips), by_l2(generated, distinct, flips)
    spacing = np.where(np.eye(30), np.inf, own).min(1)
    np.testing.assert_allclose(found.source_spacing, spacing[near.argmin(1)])
    pool = control[spread(130, 30)]
    np.testing.assert_allclose(found.to_held_out, by_l2(generated, pool, flips).min(1))
    np.testing.assert_allclose(found.around, near.mean(1), rtol=1e-12)
    if memory == 2**28:
        assert len(found.null_around) == 150
        nearest = by_l2(np.concatenate([control, control[:20]]), distinct, flips)
        np.testing.assert_allclose(found.null_around, nearest.mean(1), rtol=1e-12)
        np.testing.assert_allclose(found.null_source_spacing, spacing[nearest.argmin(1)])
        told = whole.as_json()
        assert told["nearer_training"] == np.mean(near.min(1) < found.to_held_out) > 0.6
        assert told["authentic"] == np.mean(near.min(1) > spacing[near.argmin(1)])
        assert told["authentic"] < told["authentic_null"]
        assert told["calibrated"] > 0.4


def test_too_few_held_out_images_for_a_pool(tmp_path):
    paths = [
        saved(tmp_path / name, x)
        for name, x in (("t.npy", TRAINING[:40]), ("g.npy", FRESH[:20]), ("h.npy", HELD_OUT[:39]))
    ]
    told = compared(*paths).as_json()
    assert told["nearer_training"] is None
    assert told["calibrated"] is None, "39 held-out images can't show one in a hundred"
    assert told["authentic"] is not None
    assert compared(*paths[:2]).as_json()["authentic"] is None, "without held-out images"


def test_what_is_copied_or_nearly_equal_is_judged_by_the_k_that_is_asked_for(tmp_path):
    """Grey images at 0, 40, 100, …: the generated ones have ratios of .1 and .45."""
    levels = np.array([0, 40, 100, 200, 255])
    training = np.broadcast_to(levels[:, None, None, None], (5, 8, 8, 1)).astype(np.uint8)
    made = np.array([104, 104, 131, 44, 96])  # of which 131 is nearer than half to 100
    generated = np.broadcast_to(made[:, None, None, None], (5, 8, 8, 1)).astype(np.uint8)
    paths = saved(tmp_path / "t.npy", training), saved(tmp_path / "g.npy", generated)
    third, half = (compared(*paths, k=k) for k in (1 / 3, 0.5))
    assert third.copied == [(2, 3), (1, 1)]
    assert half.copied == [(2, 4), (1, 1)]
    # 40 is the least distance of neighbours, and 55 the median
    assert compared(*paths, k=0.7).near_duplicates == []
    assert compared(*paths, k=0.74).near_duplicates == [[0, 1]]
    alike = saved(tmp_path / "alike.npy", training[[3, 1, 3, 1]])
    assert compared(paths[0], alike).copied == [(1, 2), (3, 2)], "of equals the first"
    held_out = saved(tmp_path / "h.npy", (training[:3] + 20).astype(np.uint8))
    ratio = compared(*paths, held_out).as_json()["holdout_ratio"]
    assert ratio == pytest.approx(4 / 20)


# ---------------------------------------------------------------- the page


def test_a_card_shows_an_image_its_two_neighbours_and_their_distances(tmp_path):
    """Nearest first: by the ratio of the distances, then by the first."""
    levels = np.array([0, 50, 200])
    training = np.broadcast_to(levels[:, None, None, None], (3, 8, 8, 1)).astype(np.uint8)
    made = np.array([60, 201, 51, 120])
    generated = np.broadcast_to(made[:, None, None, None], (4, 8, 8, 1)).astype(np.uint8)
    found = compared(saved(tmp_path / "t.npy", training), saved(tmp_path / "g.npy", generated))
    write_page(found, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    cards = re.findall(r"<figcaption>(.*?)<br>\s*d1 (\S+), d2 (\S+)</figcaption>", page)
    assert cards == [
        ("[1] | [2] | [1]", "8.0", "1208.0"),
        ("[2] | [1] | [0]", "8.0", "408.0"),
        ("[0] | [1] | [0]", "80.0", "480.0"),
        ("[3] | [1] | [2]", "560.0", "640.0"),
    ]
    pixels = [
        np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))[0, 0]
        for text in re.findall(r'src="data:image/png;base64,([^"]+)"', page)[1:]  # a histogram
    ]
    assert pixels == [201, 200, 50, 51, 50, 0, 60, 50, 0, 120, 50, 200]


def test_the_page_shows_the_nearest_of_many_copies(tmp_path, monkeypatch):
    monkeypatch.setattr(page_module, "COPIES", 2)
    monkeypatch.setattr(page_module, "OTHERS", 1)
    levels, made = np.array([0, 200]), np.array([30, 10, 20, 80, 90])
    training, generated = (
        np.broadcast_to(x[:, None, None, None], (len(x), 8, 8, 1)).astype(np.uint8)
        for x in (levels, made)
    )
    found = compared(saved(tmp_path / "t.npy", training), saved(tmp_path / "g.npy", generated))
    write_page(found, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert re.findall(r"<figcaption>(\S+) ", page) == ["[1]", "[2]", "[3]"]


def test_the_page_is_one_file_and_shows_the_copies(tmp_path, capsys):
    generated = np.concatenate([TRAINING[:3], FRESH[:20]])
    train, made = folder(tmp_path / "train", TRAINING[:40]), folder(tmp_path / "made", generated)
    (train / "00001.png").rename(train / "<script>alert(1)<%2Fscript>&.png")
    out = tmp_path / "new" / "page.html"
    assert str(out) in run(capsys, "--train", train, "--generated", made, "--out", out)
    page = out.read_text()
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "http://" not in page
    assert page.count("<figure>") == 3 + 12
    assert page.count('src="data:image/png;base64,') == 1 + 3 * 15
    assert "00000.png: 1 copies" in page
    assert [path.name for path in out.parent.iterdir()] == ["page.html"]


# ---------------------------------------------------------------- the user's mistakes


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--train", "nowhere", "--generated", "g.npy"], "--train .*nowhere: a folder or a .zip file of images"),
        (["--train", "empty", "--generated", "g.npy"], "--train .*empty: 0 images are there, and 2 or more are needed"),
        (["--train", "one", "--generated", "g.npy"], "--train .*one: 1 images are there"),
        (["--train", "t.npy", "--generated", "broken"], "--generated .*a.png: not a readable image"),
        (["--train", "t.npy", "--generated", "broken.npz"], "--generated .*: not a readable array"),
        (["--train", "t.npy", "--generated", "misnamed.npz"], "--generated .*: not a readable array"),
        (["--train", "misnamed.npy", "--generated", "t.npy"], "what is in it is an .npz file"),
        (["--train", "t.npy", "--generated", "floats.npy"], r"uint8 \[n, height, width, 1 or 3\] is needed, not float32"),
        (["--train", "t.npy", "--generated", "objects.npy"], "not a readable array"),
        (["--train", "t.npy", "--generated", "none.npy"], "0 images are there"),
        (["--train", "t.npy", "--generated", "deep32"], r"a\.tif: it has 32 bits per channel"),
        (["--train", "t.npy", "--generated", "sizes"], "00000.png is 16x16 pixels .* 8x8; add --resolution 16,"),
        (["--train", "t.npy", "--generated", "wide"], "00000.png is 16x8 pixels .* 8x8; add --resolution 8,"),
        (["--train", "t.npy", "--generated", "one.npy"], r"one image as \[1, 8, 8, 3\], grey images as \[8, 8, 3, 1\]"),
        (["--train", "t.npy", "--generated", "claim.npy"], r"promises uint8 \[1000000000000, 8, 8, 1\], and 9 bytes are there"),
        (["--train", "t.npy", "--generated", "pipe.npy"], "it is not a regular file"),
        (["--train", "pipe.npz", "--generated", "t.npy"], "it is not a regular file"),
        (["--train", "same.npy", "--generated", "g.npy"], "all images are the same"),
        (["--train", "t.npy", "--generated", "g.npy", "--holdout", "nowhere"], "--holdout"),
        (["--train", "t.npy", "--generated", "g.npy", "--k", "2"], "--k 2: a number between 0 and 1"),
        (["--train", "t.npy", "--generated", "g.npy", "--resolution", "1"], "--resolution"),
        (["--train", "t.npy", "--generated", "g.npy", "--out", "page.txt"], "ends in .html"),
        (["--train", "t.npy", "--generated", "g.npy", "--out", "g.npy/page.html"], "can't be written"),
        (["--train", "t.npy"], "--generated"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_exit_2_and_nothing_is_created(
    tmp_path, capsys, monkeypatch, arguments, text
):
    monkeypatch.chdir(tmp_path)
    for name, images in {
        "t.npy": TRAINING[:9], "g.npy": FRESH[:9], "same.npy": TRAINING[[0] * 4], "none.npy": TRAINING[:0],
        "floats.npy": TRAINING.astype(np.float32), "objects.npy": np.array([{}, {}], dtype=object),
    }.items():  # fmt: skip
        np.save(name, images, allow_pickle=True)
    np.save("one.npy", np.zeros((8, 8, 3), np.uint8))
    with open("claim.npy", "wb") as claim:
        header = {"descr": "|u1", "fortran_order": False, "shape": (10**12, 8, 8, 1)}
        np.lib.format.write_array_header_1_0(claim, header)
        claim.write(b"9 bytes !")
    for name in ("pipe.npy", "pipe.npz"):
        os.mkfifo(name)
    for name in ("empty", "broken", "deep32"):
        Path(name).mkdir()
    Path("broken/a.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    Path("misnamed.npz").write_bytes(Path("t.npy").read_bytes())
    np.savez("t.npz", TRAINING[:9])
    Path("t.npz").rename("misnamed.npy")
    Path("broken.npz").write_bytes(b"PK\x03\x04nothing")
    Image.fromarray(np.arange(64, dtype=np.int32).reshape(8, 8) * 1000).save("deep32/a.tif")
    folder(Path("one"), TRAINING[:1])
    folder(Path("wide"), np.concatenate([FRESH[:2], FRESH[2:4]], axis=2))
    folder(Path("sizes"), np.kron(FRESH[:2], np.ones((1, 2, 2, 1), dtype=np.uint8)))
    before = sorted(tmp_path.rglob("*"))
    if "--out" not in arguments:
        arguments = [*arguments, "--out", "page.html"]
    with pytest.raises(SystemExit) as ended:
        main(["audit", *arguments])
    printed = capsys.readouterr()
    assert ended.value.code == 2
    assert printed.err.startswith("emm: error: ")
    assert printed.err.count("\n") == 1
    assert re.search(text, printed.err), printed.err
    assert sorted(tmp_path.rglob("*")) == before


def test_it_needs_no_sweep(tmp_path):
    """Neither Ray nor MLflow nor Optuna is imported, and nothing is trained."""
    for name, images in (("t", TRAINING[:9]), ("g", FRESH[:9])):
        np.save(tmp_path / f"{name}.npy", images)
    code = (
        "import sys\nfrom sweep.cli.main import main\n"
        "try: main(['audit', '--train', 't.npy', '--generated', 'g.npy'])\nexcept SystemExit as end: assert not end.code\n"
        "sys.exit(bool({'ray', 'mlflow', 'optuna'} & sys.modules.keys()))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        check=False,
        capture_output=True,
        env=environment,
    )
    assert done.returncode == 0, done.stderr


# ---------------------------------------------------------------- in features


EYE = ["--features", "tests.eyes:spectrum"]


@pytest.mark.parametrize("memory", [2**28, 2**18], ids=["at once", "in blocks"])
def test_copies_moved_by_a_pixel_are_seen_in_features_alone(tmp_path, memory):
    """In one block and in many, of a held-out set that is sorted and holds training images."""
    rng = np.random.default_rng(0)
    moved = np.roll(TRAINING[rng.integers(0, 300, 60)], (1, 1), axis=(1, 2))
    generated = np.concatenate([moved, FRESH[:140]])
    by_brightness = HELD_OUT[np.argsort(HELD_OUT.reshape(500, -1).sum(1))]
    held_out = np.concatenate([TRAINING[:5], by_brightness])
    paths = [
        saved(tmp_path / name, x)
        for name, x in (("t.npy", TRAINING), ("g.npy", generated), ("h.npy", held_out))
    ]
    how = Measurement(features="tests.eyes:spectrum")
    found = compared(*paths, memory=memory, how=how)
    features = open_features(how, (1, 8, 8), torch.device("cpu"))
    generated, held_out, training = (
        torch.from_numpy(x.transpose(0, 3, 1, 2)) for x in (generated, by_brightness, TRAINING)
    )
    expected = FeatureBank(features, training, held_out).look_at(generated)
    seen, content = found.distances.in_features, found.as_json()
    for part in ("d1", "d2"):
        for near in ("found", "null"):
            ours, theirs = (np.sort(getattr(getattr(one, near), part)) for one in (seen, expected))
            np.testing.assert_allclose(ours, theirs, atol=1e-6)
    assert seen.copies[:60].all()
    assert content["r_mem"] < 0.03
    assert content["r_mem_features"] == pytest.approx(0.3, abs=0.02)
    assert content["features_null"] == pytest.approx(0.01, abs=0.015)
    assert (content["features"], content["null_in_training"]) == ("tests.eyes:spectrum", 5)


def test_an_audit_in_features_as_a_user_sees_it(tmp_path, capsys):
    moved = np.roll(TRAINING[:60], 1, axis=2)
    paths = [
        saved(tmp_path / name, x)
        for name, x in (("t.npy", TRAINING), ("g.npy", moved), ("h.npy", HELD_OUT))
    ]
    sets = ["--train", paths[0], "--generated", paths[1], "--holdout", paths[2]]
    page = tmp_path / "page.html"
    output = run(capsys, *sets, *EYE, "--out", page)
    assert (
        "in features (tests.eyes:spectrum): 100.00% of the generated images are copies, with d1 / d2 below"
        in output
    )
    text = page.read_text()
    assert "Copies in features that are none in pixels" in text
    cards = text.split("Copies in features that are none in pixels")[1].split("<h2>")[0]
    for row in (7, 31):
        assert re.search(
            rf"\[{row}\] \| \[{row}\] \| \[\d+\]<br>\s*d1 0\.000, d2 0\.[1-9]", cards
        ), "beside its source"
    plain = run(capsys, *sets, "--out", page)
    assert "in features" not in plain + page.read_text()


def test_few_held_out_images_say_nothing_in_features(tmp_path, capsys):
    paths = [
        saved(tmp_path / name, x)
        for name, x in (("t.npy", TRAINING), ("g.npy", FRESH[:50]), ("h.npy", HELD_OUT[:197]))
    ]
    sets = ["--train", paths[0], "--generated", paths[1], "--holdout", paths[2]]
    assert json.loads(run(capsys, *sets, *EYE, "--json"))["r_mem_features"] is None
    output = run(capsys, *sets, *EYE)
    assert "198 held-out images or more are needed, and there are 197" in output


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (EYE, "--features: --holdout is needed as well"),
        (["--features-options", "size=3"], "--features: name the function of which more is said"),
        (["--features-rule", "distance"], "--features: name the function of which more is said"),
        ([*EYE, "--holdout", "HELD", "--features-options", "size=3"], "--features=tests.eyes:spectrum: called"),
        (["--features", "eye", "--holdout", "HELD"], "write it as package.module:name"),
        (["--features", "tests.eyes:closed", "--holdout", "HELD"], "has no function or class"),
    ],
)  # fmt: skip
def test_a_mistake_about_features_is_one_line(tmp_path, capsys, arguments, text):
    images, page = saved(tmp_path / "x.npy", TRAINING), tmp_path / "page.html"
    words = [images if word == "HELD" else word for word in arguments]
    with pytest.raises(SystemExit) as ended:
        main(
            list(
                map(str, ["audit", "--train", images, "--generated", images, "--out", page, *words])
            )
        )
    printed = capsys.readouterr()
    assert ended.value.code == 2
    assert printed.err.count("\n") == 1
    assert text in printed.err
    assert not page.exists()
