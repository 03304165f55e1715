"""What leaves the storage as pictures, and that a gallery shows what was measured."""

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sweep.analysis.summary import summarize
from sweep.report.files import _shown_trial, write_report
from sweep.report.gallery import (
    FRAMED,
    Gallery as Shown,
    Measured,
    Pictures,
    gallery_maker,
    measured,
)
from sweep.report.style import as_png
from tests.fakes import fake_space
from tests.results import write_sweep
from tests.summaries import VERDICTS, Page, study, trial
from trainables.config.data import Digits
from trainables.config.measurement import Measurement
from trainables.data.images import ImageData, subset_order
from trainables.data.sources import load
from trainables.errors import UserError
from trainables.measure.r_mem import Neighbours
from trainables.storage import Storage

DIGITS = load(Digits())
SPACE = fake_space((8,), n_high=64).model_copy(
    update={"measurement": Measurement(n_samples=60, n_selection=50, snapshots=4)}
)


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Storage:
    kept = Storage(str(tmp_path_factory.mktemp("sweep")))
    write_sweep(kept, SPACE, DIGITS, 3)
    return kept


def one_colour(values: list[int]) -> np.ndarray[Any, Any]:
    return np.array(values, np.uint8)[:, None, None, None] * np.ones((1, 3, 48, 48), np.uint8)


def canvas(shown: Shown) -> np.ndarray[Any, Any]:
    (image,) = gallery_maker(shown)().axes[0].get_images()
    return np.asarray(image.get_array())


def test_a_gallery_is_sorted_by_the_ratio_and_frames_what_is_memorized() -> None:
    found = Neighbours(
        np.array([90.0, 1.0, 20.0]), np.full(3, 100.0), np.array([0, 1, 2]), np.array([3, 3, 3])
    )
    content = Measured(one_colour([10, 20, 30]), found, found.memorized())
    shown = canvas(Shown("t", content, one_colour([110, 120, 130, 140])))
    side = 48 + 2 * 5
    centres = [
        [int(shown[row * side + side // 2, column * side + side // 2, 0]) for column in range(3)]
        for row in range(3)
    ]
    assert centres == [[20, 30, 10], [120, 130, 110], [140, 140, 140]]
    frames = [tuple(shown[2, column * side + side // 2]) == FRAMED for column in range(3)]
    assert frames == [True, True, False]
    most_copied = shown[
        3 * side + 22 + side // 2, [side // 2, side + side // 2, 2 * side + side // 2], 0
    ]
    assert most_copied.tolist() == [120, 130, 255]  # two were copied, once each
    words = [text.get_text() for text in gallery_maker(Shown("t", content, None))().axes[0].texts]
    assert words == ["generated", "1 / 100", "20 / 100", "90 / 100"]
    assert canvas(Shown("t", content, None)).shape[0] == side + 22  # the generated ones alone


def test_what_was_copied_most_often_comes_first_and_copies_alone_count() -> None:
    """Of six samples four are memorized: image 2 twice, 0 and 1 once; 0 is nearest to most."""
    found = Neighbours(
        np.array([1.0, 1, 1, 1, 90, 90]),
        np.full(6, 100.0),
        np.array([1, 2, 2, 0, 0, 0]),
        np.full(6, 3),
    )
    content = Measured(one_colour([10] * 6), found, found.memorized())
    shown = Shown("t", content, one_colour([110, 120, 130, 140]))
    side, row = 48 + 2 * 5, 3 * (48 + 2 * 5) + 22
    copied = canvas(shown)[row + side // 2, side // 2 : 4 * side : side, 0]
    assert copied.tolist() == [130, 110, 120, 255]
    words = [text.get_text() for text in gallery_maker(shown)().axes[0].texts]
    assert words[-4:] == ["most copied", "2 ×", "1 ×", "1 ×"]


def test_copies_are_framed_by_the_k_of_the_trial(storage: Storage) -> None:
    """Distances of .08 and .8 of the second nearest."""
    one = min(summarize(storage).studies[0].complete, key=lambda trial: abs(trial.r_mem - 0.5))
    shares = []
    for k in (0.05, 1 / 3, 0.9):
        how = one.measurement.model_copy(update={"k": k})
        at_k = one.model_copy(update={"spec": one.spec.model_copy(update={"measurement": how})})
        kept = measured(storage, at_k)
        assert kept is not None
        shares.append(kept.memorized.mean())
    assert shares == [0, one.r_mem, 1]
    assert 0 < shares[1] < 1


def test_of_a_damaged_trial_the_report_has_no_gallery_and_says_so(tmp_path: Path) -> None:
    kept = Storage(str(tmp_path / "sweep"))
    write_sweep(kept, SPACE, DIGITS, 1)
    (one,) = summarize(kept).studies[0].complete
    kept.write(f"trials/{one.training_key}/measurement.npz", b"damaged")
    told = list[str]()
    pictures = Pictures(kept, "generated")
    page = write_report(summarize(kept), tmp_path / "report", pictures, told.append)
    (line,) = told
    assert line.startswith("passed over: ")
    assert "measurement.npz is damaged" in line
    assert line in Page(page.read_text()).text
    assert not list((tmp_path / "report").glob("gallery-*"))


def test_what_draws_a_gallery_holds_what_is_shown_and_no_more() -> None:
    """Of the first 24 of 40 samples, three rows at 96 pixels, and a row of what was copied."""
    images = np.zeros((40, 3, 256, 256), np.uint8)
    found = Neighbours(np.ones(40), np.full(40, 9.0), np.arange(40), np.arange(40))
    shown = Shown("t", Measured(images, found, found.memorized()), images)
    pixels = (24 * 3 + 12) * 3 * 96 * 96
    assert pixels < len(pickle.dumps(gallery_maker(shown))) < 1.01 * pixels


@pytest.mark.parametrize(("channels", "resolution"), [(1, 8), (3, 32), (3, 256)])
def test_a_gallery_of_any_size_of_image(channels: int, resolution: int) -> None:
    images = np.zeros((40, channels, resolution, resolution), np.uint8)
    found = Neighbours(np.ones(40), np.full(40, 9.0), np.arange(40), np.arange(40))
    shown = Shown("t", Measured(images, found, found.memorized()), images)
    png = as_png(gallery_maker(shown)())
    with Image.open(io.BytesIO(png)) as picture:
        assert picture.width == round(6.9 * 220)


def test_positions_are_those_of_the_whole_data_set(storage: Storage) -> None:
    trial = summarize(storage).studies[0].complete[0]
    kept = measured(storage, trial)
    assert kept is not None
    subset = subset_order(DIGITS, trial.spec.seed)[: trial.spec.n]
    place = {index: position for position, index in enumerate(subset.tolist())}
    nearest, second = ([place[i] for i in part.tolist()] for part in (kept.found.i1, kept.found.i2))
    assert second == [(i + 1) % trial.spec.n for i in nearest], "as `write_trial` writes them"
    copies = kept.memorized.nonzero()[0]
    far = np.abs(DIGITS.images[kept.found.i1[copies]].astype(int) - kept.samples[copies]).mean()
    assert (
        far
        < 10
        < np.abs(DIGITS.images[kept.found.i2[copies]].astype(int) - kept.samples[copies]).mean()
    )


def test_the_gallery_is_of_the_trial_nearest_to_the_emm_in_ln_n() -> None:
    """1.5 × the EMM of 35.2 is nearer to it than 0.6 ×, although farther in images."""
    trials = [trial("a", n, i) for i, n in enumerate((21, 53, 140))]
    shown = _shown_trial(study("a", VERDICTS["found"], trials))
    assert shown is not None
    assert shown.spec.n == 53
    searching = _shown_trial(study("a", VERDICTS["searching"], trials[::-1]))
    assert searching is not None
    assert searching.spec.seed == 2, "while none is known, the last one"


@pytest.mark.parametrize("images", ["none", "generated", "pairs"])
def test_the_report_shows_what_is_allowed_and_says_so(
    storage: Storage, tmp_path: Path, images: Any
) -> None:
    asked = []

    def data(name: str) -> ImageData:
        asked.append(name)
        return DIGITS

    text = write_report(summarize(storage), tmp_path, Pictures(storage, images, data)).read_text()
    galleries = list(tmp_path.glob("gallery-*"))
    assert len(galleries) == (0 if images == "none" else 2)
    assert bool(asked) is (images == "pairs")
    alts = [attributes.get("alt") for tag, attributes in Page(text).tags if tag == "img"]
    assert ("Generated images of width=8" in alts) is (images != "none")
    said = {
        "none": "no pixel of the data leaves",
        "generated": "no training image is shown",
        "pairs": "second nearest training",
    }
    assert [words in Page(text).text for words in said.values()] == [key == images for key in said]


@pytest.mark.parametrize(
    "data", [None, lambda name: (_ for _ in ()).throw(UserError("gone")), lambda name: OTHER]
)
def test_training_images_are_left_out_where_the_data_are_not_at_hand(
    storage: Storage, data: Any
) -> None:
    trial = summarize(storage).studies[0].complete[0]
    shown = Pictures(storage, "pairs", data).of(trial)
    assert shown is not None
    assert shown.training is None


OTHER = ImageData.of(DIGITS.images[:10], None, "digits")
