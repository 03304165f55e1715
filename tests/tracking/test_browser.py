"""What a person reads in Chromium: a real MLflow server, a real browser, and screenshots in
results/screenshots."""

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sweep.analysis.summary import SweepSummary, summarize
from sweep.cli.lone_report import write_lone_report
from sweep.report.files import write_report
from sweep.report.gallery import pictures_of
from sweep.tracking.moved import settle
from sweep.tracking.place import Destination, local_tracking, sweep_key
from sweep.tracking.server import server, urls
from sweep.tracking.sync import sync
from tests.fakes import fake_space
from tests.results import write_sweep, write_trial
from trainables.config.data import Digits
from trainables.config.measurement import Measurement
from trainables.data.sources import load
from trainables.storage import Storage
from trainables.text import amount

SCREENSHOTS = Path(__file__).parents[2] / "results" / "screenshots"
WIDTHS = (8, 12, 16, 24)
PATIENCE = 60.0  # seconds, until a page shows what it should
pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Storage:
    kept, space = Storage(str(tmp_path_factory.mktemp("sweep"))), fake_space(WIDTHS, n_high=256)
    space = space.model_copy(
        update={
            "name": "digits-width",
            "question": "Does a wider network memorize more training images?",
            "measurement": HOW,
        }
    )
    write_sweep(kept, space, load(Digits()), 8)
    return kept


HOW = Measurement(n_samples=300, n_selection=100, snapshots=4)


@pytest.fixture(scope="module")
def summary(storage: Storage) -> SweepSummary:
    return summarize(storage)


@pytest.fixture(scope="module")
def shown(storage: Storage, summary: SweepSummary) -> Iterator[dict[str, str]]:
    """The addresses of a running server."""
    data = load(Digits())
    sync(
        summary,
        storage,
        Destination(*local_tracking(Path(storage.root)), "pairs", lambda name: data),
    )
    with server(Path(storage.root)) as address:
        yield urls(address, sweep_key(summary.space, storage))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for argument in (
        "headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "disable-background-networking",
        "disable-component-update", "disable-sync", "no-first-run", "hide-scrollbars", "window-size=1700,950",
        "host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    ):  # fmt: skip
        options.add_argument(f"--{argument}")
    driver = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver") or ""))
    yield driver
    driver.quit()


class Window:
    def __init__(self, browser: Any) -> None:
        self.browser = browser

    def resize(self, width: int) -> None:
        """Of the page, in pixels; below 600 it is that of a phone."""
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        self.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)

    def open(self, url: str) -> None:
        self.browser.get("about:blank")  # a new address behind the # alone loads nothing
        if url.startswith(
            "http"
        ):  # MLflow greets with a panel that covers the page, unless its store says otherwise
            self.browser.get(url.partition("/#")[0] + "/health")
            self.browser.execute_script(
                "localStorage['mlflow.assistant.fab.autoOpenedOnFirstLoad_v1']='true';"
                "localStorage['mlflow.assistant.panelOpen']='false'"
            )
        self.browser.get(
            url
        )  # once: what MLflow adds to the address keeps a page that is loaded again from its view

    @property
    def text(self) -> str:
        return str(
            self.browser.execute_script("return document.body ? document.body.innerText : ''")
        )

    def until(self, holds: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not holds():
            assert time.monotonic() < deadline, f"{what} did not appear in:\n{self.text[:3000]}"
            time.sleep(0.3)

    def reads(self, *texts: str) -> None:
        """Waits until the page shows them all."""
        for text in texts:
            self.until(lambda text=text: text in self.text, text)  # type: ignore[misc]

    def screenshot(self, name: str) -> None:
        time.sleep(1.5)  # charts fade in
        # without a mouse, plotly's buttons stay in front of the points
        self.browser.execute_script(
            "document.head.insertAdjacentHTML('beforeend', '<style>.modebar-container{display:none}</style>')"
        )
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        assert self.browser.save_screenshot(str(SCREENSHOTS / f"{name}.png"))

    def click(self, text: str) -> None:
        self.browser.execute_script(
            "arguments[0].click()", self.browser.find_element("xpath", f"//*[text()='{text}']")
        )

    def count(self, selector: str) -> int:
        return len(self.browser.find_elements("css selector", selector))


@pytest.fixture
def window(browser: Any) -> Iterator[Window]:
    yield Window(browser)
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_the_studies_are_a_table(
    window: Window, shown: dict[str, str], summary: SweepSummary
) -> None:
    window.open(shown["studies"])
    window.reads("width=8", "width=24", "emm_low", "emm_high", "found", "emm.verdict")
    emms = [f"{study.verdict.emm:.5g}" for study in summary.studies]
    window.reads(*emms)
    assert "seed=0" not in window.text  # studies only
    window.screenshot("studies")


def test_the_charts_show_emm_against_the_factor(window: Window, shown: dict[str, str]) -> None:
    window.open(shown["charts"])
    window.until(
        lambda: window.count(".js-plotly-plot .scatterlayer .points path") >= len(WIDTHS),
        "a point for every study",
    )
    window.until(
        lambda: window.count(".js-plotly-plot .barlayer .point") >= len(WIDTHS),
        "a bar for every study",
    )
    window.reads("width", "emm")
    window.screenshot("charts")


def test_studies_are_compared_side_by_side(
    window: Window, shown: dict[str, str], summary: SweepSummary
) -> None:
    window.open(shown["compare"])
    window.reads(f"Comparing {len(WIDTHS)} Runs", *[study.name for study in summary.studies])
    window.screenshot("compare-charts")
    window.reads("emm_low", *[f"{study.verdict.emm:.3g}"[:3] for study in summary.studies])
    metrics = window.browser.find_element("xpath", "//*[text()='emm_low']")
    window.browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", metrics)
    window.screenshot("compare")


def test_curves_of_trials_lie_over_each_other(
    window: Window, shown: dict[str, str], summary: SweepSummary
) -> None:
    window.open(shown["trials"])
    window.until(
        lambda: window.count(".js-plotly-plot .scatterlayer .trace") >= 8 * len(WIDTHS),
        "a line for every trial",
    )
    window.reads("r_mem_snapshot")
    drawn = "return [...document.querySelectorAll('.js-plotly-plot')].map(p => p.data.map(t => [...(t.y || [])].pop()))"
    lines = window.browser.execute_script(drawn)[0]
    assert max(lines) == pytest.approx(
        max(r.curve[-1].r_mem for s in summary.studies for r in s.complete)
    )  # not smoothed
    window.screenshot("trials")


def run_named(name: str, storage: Storage) -> Any:
    from mlflow import MlflowClient

    client = MlflowClient(local_tracking(Path(storage.root))[0])
    experiment = client.get_experiment_by_name("emm-sweep").experiment_id
    (run,) = client.search_runs([experiment], f"attributes.run_name = '{name}'")
    return run


def page_of(run: Any, shown: dict[str, str]) -> str:
    where = shown["studies"].partition("/#")[0]
    return f"{where}/#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}?workflowType=machine_learning"


def test_a_trials_page_shows_its_gallery(
    window: Window, shown: dict[str, str], summary: SweepSummary, storage: Storage
) -> None:
    window.open(page_of(run_named("width=8 N=15 seed=3", storage), shown))
    window.reads("memorized ones are framed", "r_mem", "digits")
    loaded = "return [...document.images].some(i => i.src.includes('samples.png') && i.naturalWidth > 700)"
    window.until(lambda: window.browser.execute_script(loaded), "the gallery")
    window.click("Show more")
    window.screenshot("trial")


def test_runs_explain_themselves(window: Window, shown: dict[str, str], storage: Storage) -> None:
    for name, words in (
        ("width=8", "Each point is a trial"),
        ("digits-width", "Does a wider network memorize more"),
    ):
        window.open(page_of(run_named(name, storage), shown))
        window.reads(words)
        loaded = "return [...document.images].filter(i => i.src.includes('figures') && i.naturalWidth > 300).length >= 2"
        window.until(lambda loaded=loaded: window.browser.execute_script(loaded), "the figures")  # type: ignore[misc]
        window.click("Show more")
        window.screenshot(f"run-{name}")


@pytest.fixture(scope="module")
def page(summary: SweepSummary, storage: Storage, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of the sweep's report."""
    directory = tmp_path_factory.mktemp("report") / "a name with ünïcode"
    return write_report(summary, directory, pictures_of(summary.space, storage)).as_uri()


# of the window, and of what is wider than it beside what may be moved by itself
IS_WITHIN = """return document.documentElement.scrollWidth <= window.innerWidth
  && [...document.querySelectorAll('h1, h2, p, dl, li, summary, figure > img')]
    .every(e => e.getBoundingClientRect().right <= window.innerWidth + 1)"""


@pytest.mark.parametrize("width", [1700, 390])
def test_the_report_opens_from_disk(
    window: Window, summary: SweepSummary, page: str, width: int
) -> None:
    window.resize(width)
    window.open(page)
    window.reads(
        "Does a wider network memorize more training images?",
        "The EMM grows with the width, from ",
        "What was trained",
        *[amount(study.verdict.emm or 0) for study in summary.studies],
    )
    script = window.browser.execute_script
    script("document.querySelectorAll('details').forEach(e => e.open = true)")
    broken = "return [...document.images].filter(i => !i.complete || i.naturalWidth == 0).length"
    assert script(broken) == 0
    loaded = "return performance.getEntriesByType('resource').filter(r => !r.name.startsWith('data:')).length"
    assert script(loaded) == 0
    assert script(IS_WITHIN)
    smallest = """return Math.min(...[...document.querySelectorAll('p, td, dd, li')]
      .map(e => parseFloat(getComputedStyle(e).fontSize)))"""
    assert script(smallest) >= 13
    window.open(page)
    window.screenshot(f"report-{width}")
    window.click("Provenance")
    top = "return document.getElementById('provenance-of-all').getBoundingClientRect().top"
    window.until(lambda: 0 <= script(top) < script("return window.innerHeight"), "the last section")
    window.screenshot(f"report-end-{width}")


def test_the_report_on_a_phone_keeps_names_beside_the_numbers(window: Window, page: str) -> None:
    window.resize(390)
    window.open(page)
    script = window.browser.execute_script
    script("document.querySelector('#configurations').parentElement.scrollLeft = 200")
    left = "return document.querySelector('#configurations td').getBoundingClientRect().left"
    assert 0 <= script(left) < 40


def test_the_report_is_whole_on_paper(window: Window, page: str) -> None:
    """No table is wider than the paper, no contents are printed, and what is folded stays so."""
    window.resize(700)
    window.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        window.open(page)
        script = window.browser.execute_script
        script("document.querySelectorAll('details').forEach(e => e.open = true)")
        wide = """return [...document.querySelectorAll('table, img')]
          .filter(e => e.getBoundingClientRect().right > window.innerWidth)
          .map(e => e.id || e.alt)"""
        assert script(wide) == []
        assert "How to read this\nProvenance" not in window.text
        window.screenshot("report-print")
    finally:
        window.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


@pytest.mark.parametrize("width", [1700, 390])
def test_the_page_of_single_trials(window: Window, tmp_path: Path, width: int) -> None:
    space, data, storage = fake_space(WIDTHS), load(Digits()), Storage(str(tmp_path))
    space = space.model_copy(update={"measurement": HOW})
    for n in (12, 40):
        write_trial(storage, space, space.configurations[0], data, n, 0)
    page = write_lone_report(storage, tmp_path / "report")
    window.resize(width)
    window.open(page.as_uri())
    window.reads("2 trials", "width=8: N=12 seed=0", "generated images are copies", "ddpmpp")
    script = window.browser.execute_script
    shown = "return [...document.images].filter(i => i.complete && i.naturalWidth > 0).length"
    assert script(shown) == 4, "curve and pictures of each"
    assert script(IS_WITHIN)
    window.screenshot(f"trials-page-{width}")


def test_a_copied_sweep_opens_with_its_answer_and_its_figures(
    window: Window, shown: dict[str, str], storage: Storage, summary: SweepSummary, tmp_path: Path
) -> None:
    """`shown`: so that MLflow holds the sweep; of its first place no file is served."""
    copied = Storage(str(shutil.copytree(storage.root, tmp_path / "copied")))
    key = sweep_key(summary.space, copied)
    assert settle(Path(copied.root), copied, key)
    with server(Path(copied.root)) as address:
        window.open(urls(address, key)["studies"])
        emm = amount(summary.studies[0].verdict.emm or 0.0)
        window.reads("width=8", "width=24", "emm.verdict", f"width=8: EMM {emm}")
        run = "img[src*='path=figures%2Femm.png']"
        window.until(lambda: window.count(run) > 0, "the figure of the answer")
        picture = f'return document.querySelector("{run}").naturalWidth'
        window.until(lambda: window.browser.execute_script(picture) > 0, "its pixels")
        window.screenshot("copied")
