"""The figures beside an EMM and the warnings, on trials whose numbers are set."""

import math
from dataclasses import replace

import pytest
from rich.console import Console

from sweep.analysis.summary import summary_of
from sweep.report.figures import figures_of
from sweep.report.latex import latex
from sweep.report.rows import half_lines, length_rows, scale_rows
from sweep.report.study_figures import training_figure
from sweep.report.sweep_figures import contrast_figure, cost_figure
from sweep.report.table import print_table
from sweep.search.belief import Observation, belief
from sweep.search.words import ends_text
from tests.results import caution_lines
from tests.summaries import DATA, SPACE, VERDICTS, curve, found, study, sweep_of, trial
from trainables.config.fields import with_fields
from trainables.config.measurement import Measurement
from trainables.text import amount, duration
from trainables.trial.result import DataSummary, Result, Snapshot


def test_scale_is_the_mean_of_the_trials_near_the_emm() -> None:
    trials = [
        trial(
            "a",
            30,
            0,
            median_d1=10.0,
            nn_distance=100.0,
            null_rate=0.02,
            ceiling=1.0,
            noisy_copier=0.95,
        ),
        trial(
            "a",
            40,
            1,
            median_d1=20.0,
            nn_distance=None,
            null_rate=0.04,
            ceiling=0.8,
            noisy_copier=0.85,
        ),
        trial(
            "a",
            36,
            3,
            250,
            median_d1=15.0,
            nn_distance=None,
            null_rate=0.03,
            ceiling=0.9,
            noisy_copier=0.0,
        ),  # no copies
        trial(
            "a",
            200,
            2,
            median_d1=900.0,
            nn_distance=900.0,
            null_rate=0.9,
            ceiling=0.1,
            noisy_copier=0.1,
            r_mem_half=None,
        ),
    ]
    scale = study("a", found(35.0, 30, 40), trials).scale
    assert scale.n_trials == 3
    assert (scale.means["median_d1"], scale.means["nn_distance"]) == (15.0, 100.0)
    assert scale.means["null_rate"] == pytest.approx(0.03)
    assert scale.means["ceiling"] == pytest.approx(0.9)
    assert scale.share == pytest.approx(35 / 1797)
    assert scale.means["noisy_copier"] == pytest.approx(0.9), "of the trials that mostly copy"
    assert scale.half == (None, None, None)  # the rate of this recipe decays
    (row,) = scale_rows(sweep_of(study("a", found(35.0, 30, 40), trials)))
    assert row == ("a", "15.0", "100", "0.030", "0.900", "0.900", "0.019", "-", "-")


def constant(result: Result) -> Result:
    """The same trial of a training at a constant rate, of which half a training is a training."""
    configuration = with_fields(result.configuration, {"trainer.decay": 0.0})
    return result.model_copy(
        update={"spec": result.spec.model_copy(update={"configuration": configuration})}
    )


def halves(emm: float) -> list[Result]:
    """Trials that memorize half as many images halfway, on a logistic curve."""
    full = [constant(r) for r in curve("width=8", 60, (10, 20, 25, 30, 35, 40, 60, 80))]
    return [
        halfway(r, 1 / (1 + math.exp(3 * math.log(r.spec.n / emm) - math.log(9)))) for r in full
    ]


def halfway(result: Result, r_mem: float, after: float | None = None) -> Result:
    """With that R_mem at the fourth of eight snapshots of 200 images, none before, and what it has
    at the end, or `after`, from then on."""
    ratios = (0, 0, 0, r_mem, *[result.r_mem if after is None else after] * 4)
    curve = [
        Snapshot(
            images_trained=3200 * i,
            loss=1,
            r_mem=ratio,
            n_samples=200,
            n_memorized=round(200 * ratio),
            median_d1=1,
            seconds=i,
        )
        for i, ratio in enumerate(ratios, 1)
    ]
    return result.model_copy(update={"r_mem_half": r_mem, "curve": tuple(curve)})


def test_the_emm_at_half_of_the_training() -> None:
    scale = summary_of(SPACE, halves(30), []).studies[0].scale
    assert scale.half.emm == pytest.approx(30, rel=0.2)
    assert scale.half.low < 30 < scale.half.high  # type: ignore[operator]
    of_snapshots = [Observation(r.spec.n, r.r_mem_half or 0.0, 200) for r in halves(30)]
    own = belief(of_snapshots, 8, 256)
    assert scale.half == (own.median, *own.interval())
    many = [
        r.model_copy(update={"n_samples": 100 * r.n_samples, "n_memorized": 100 * r.n_memorized})
        for r in halves(30)
    ]
    few, many = (study("width=8", VERDICTS["found"], trials).scale for trials in (halves(30), many))
    assert few == many, (
        "R_mem halfway is of the images of the snapshot, whatever was drawn at the end"
    )
    never = [halfway(r, 0.0) for r in halves(30)]
    summary = summary_of(SPACE, never, [])
    assert summary.studies[0].scale.half.emm is None
    assert scale_rows(summary)[0][7] == "< 8"  # under the range of N
    always = [halfway(constant(trial("width=8", 249 + seed, seed)), 1.0) for seed in range(8)]
    assert scale_rows(summary_of(SPACE, always, []))[0][7] == "> 256"
    assert half_lines(summary) == []


def test_the_emm_by_length_of_training() -> None:
    """One for each snapshot, from what all trials were there; at the half it is EMM at T/2."""
    study = summary_of(SPACE, halves(30), []).studies[0]
    assert list(study.by_length) == [i / 8 for i in range(1, 9)]
    half, end = study.by_length[0.5], study.by_length[1.0]
    scale = study.scale
    assert half == scale.half
    assert end.emm == pytest.approx(60, rel=0.1)
    assert end == study.by_length[0.75]
    assert study.by_length[0.25] == (None, None, study.by_length[0.125].high), "below the range"
    rows = length_rows(sweep_of(study))
    assert [row[:3] for row in rows[:2]] == [
        ("width=8", "0.125", "< 8"),
        ("width=8", "0.25", "< 8"),
    ]
    assert rows[3] == ("width=8", "0.5", amount(half.emm or 0), ends_text(half.low, half.high))
    shown = sweep_of(study).as_json()["configurations"][0]["by_length"]
    assert shown[3] == {"share": 0.5, "emm": half.emm, "low": half.low, "high": half.high}
    decaying = curve("width=8", 60, (10, 20, 40, 80))
    assert summary_of(SPACE, decaying, []).studies[0].by_length == {}


def test_a_trial_that_was_accepted_early_had_enough_from_then_on() -> None:
    """Left out of what comes later, all that is known would be of trials that copy less."""
    trials = halves(30)
    accepted = [
        r.model_copy(update={"curve": r.curve[:5], "r_mem_half": None, "right_censored": True})
        if r.right_censored or r.spec.n <= 25
        else r
        for r in trials
    ]
    full, cut = (summary_of(SPACE, some, []).studies[0].by_length for some in (trials, accepted))
    assert cut[0.5] == full[0.5]
    seen = [(r.spec.n, r.curve[-1].r_mem, len(r.curve) < 8) for r in accepted]
    as_bounds = belief([Observation(n, r_mem, 200, bound) for n, r_mem, bound in seen], 8, 256)
    assert cut[1.0] == (as_bounds.median, *as_bounds.interval())
    assert sum(bound for *_, bound in seen) >= 3


def test_half_of_a_training_whose_rate_decays_is_no_training() -> None:
    """So its R_mem there, which was measured, gives no EMM; the reason is told once, and R_mem late
    is no claim."""
    decaying = [r.model_copy(update={"r_mem_half": h.r_mem_half, "spec": r.spec.model_copy(update={"name": "width=16"})})
                for r, h in zip(curve("width=8", 60, (10, 20, 25, 30, 35, 40, 60, 80)), halves(30), strict=True)]  # fmt: skip
    summary = summary_of(SPACE, [*halves(30), *decaying], [])
    known, unknown = (study.scale for study in summary.studies)
    assert known.half.emm is not None
    assert unknown.half == (None, None, None)
    why = "the learning rate decays over the last 75% of the training"
    assert half_lines(summary) == [f"EMM at T/2 of width=16: not shown, since {why}"]
    assert scale_rows(summary)[1][-2:] == ("-", "-")
    shown = summary.as_json()["configurations"][1]["scale"]
    assert (shown["half_emm"], shown["why_no_half"]) == (None, why)
    alone = summary_of(SPACE, decaying, [])
    assert half_lines(alone) == [f"EMM at T/2: not shown, since {why}"]
    console = Console(width=200)
    with console.capture() as capture:
        print_table(alone, console)
    assert f"EMM at T/2: not shown, since {why}" in capture.get()


def test_a_rise_of_r_mem_says_no_more_than_is_known() -> None:
    rising = [trial("a", n, i, r_mem_half=0.6, r_mem_last=0.9) for i, n in enumerate((30, 40))]
    (line,) = caution_lines(sweep_of(study("a", VERDICTS["found"], rising)))
    assert line.startswith(
        "a: near the EMM, R_mem rises late: 0.60 at half of the training, 0.90 at its end (mean of 2 trials)"
    )
    assert line.endswith(
        "can't be told, since the learning rate decays over the last 75% of the training"
    )
    (line,) = caution_lines(sweep_of(study("a", VERDICTS["found"], [constant(r) for r in rising])))
    assert line.endswith("R_mem still rises: 0.60 at half of the training, 0.90 at its end (mean of 2 trials); longer training "
                         "may give a larger EMM")  # fmt: skip
    slowly = [
        trial("a", n, i, r_mem_half=0.86, r_mem_last=0.92) for i, n in enumerate((30, 34, 38, 42))
    ]  # .06 may be noise in one trial of 200 images, and is none in four
    assert caution_lines(sweep_of(study("a", VERDICTS["found"], slowly[:1]))) == []
    (line,) = caution_lines(sweep_of(study("a", VERDICTS["found"], slowly)))
    assert "0.86 at half of the training, 0.92 at its end (mean of 4 trials)" in line
    by_images = Measurement(protocol="paper")  # 25,600 images: its only snapshot is at the end
    paper = [
        r.model_copy(update={"spec": r.spec.model_copy(update={"measurement": by_images})})
        for r in rising
    ]
    assert caution_lines(sweep_of(study("a", VERDICTS["found"], paper))) == []


def test_a_training_that_broke_down_is_named() -> None:
    """By its loss, against that of others of as many images or more, of which each has more to
    learn; the numbers are those of a sweep on photographs."""

    def said(*ends: tuple[int, float | None], **more: float) -> list[str]:
        snapshot = Snapshot(
            images_trained=25_600,
            loss=None,
            r_mem=0.5,
            n_samples=200,
            n_memorized=100,
            median_d1=9.0,
            seconds=1.0,
        )
        trials = [
            trial("a", n, seed, 100, curve=(snapshot.model_copy(update={"loss": loss}),))
            for seed, (n, loss) in enumerate(ends)
        ]
        trials[0] = trials[0].model_copy(update=more)
        return caution_lines(sweep_of(study("a", VERDICTS["found"], trials)))

    others = (45, 0.03), (59, 0.024), (71, 0.026)
    assert said((42, 0.7), *others) == [
        "a: a training seems to have broken down: loss 0.7 at N = 42, seed 0, 27 × that of others of as many images or more; "
        "it counts as one that copies little; a lower learning rate may mend it"
    ]
    (line,) = said((42, 0.7), (43, 0.2), *others)
    assert "at N = 42, seed 0, 25 × that of others of as many images or more (2 of 5 trials)" in line  # fmt: skip
    assert said((42, 0.07), *others) == [], "1.5 × was seen in sound trainings"
    assert said((80, 0.7), *others) == [], (
        "of more images than any other: it may have more to learn"
    )
    assert said((42, None), *others) == said((42, 0.7), (45, None)) == []
    assert said((42, 0.7), *others, r_mem=0.95) == [], "it copies all the same"
    assert said((20, 0.01), (30, 0.0), (40, 0.0)) == said((20, -1.0), (30, -1.1), (40, -1.2)) == []
    assert said((42, 0.7), *others, right_censored=True)[0].startswith("a: 1 of 4 trials ended early")  # fmt: skip


def test_warnings_of_what_chance_noise_and_labels_do() -> None:
    def said(*results: Result) -> str:
        return "\n".join(caution_lines(sweep_of(study("a", VERDICTS["found"], list(results)))))

    assert said(trial("a", 35, 0, noisy_copier=0.9, null_rate=0.01, unseen_labels=0.0)) == ""
    assert said(trial("a", 35, 0, noisy_copier=0.7), trial("a", 30, 1, noisy_copier=0.8)) == (
        "a: near the EMM, copies of training images with noise at median d1 would reach only R_mem 0.75, below the target 0.9 "
        "(noisy copier): the EMM may say how dense the data are"
    )
    assert said(trial("a", 200, 0, noisy_copier=0.1)) == ""  # far from the EMM
    assert (
        said(trial("a", 35, 0, 200, noisy_copier=0.1)) == ""
    )  # what lies at its median distance are no copies
    chance = [
        trial("a", n, i, null_rate=rate)
        for i, (n, rate) in enumerate(((8, 0.04), (8, 0.02), (35, 0.012)))
    ]
    assert (
        said(*chance)
        == "a: chance alone counts at k = 0.333: 3.0% of held-out images would be copies at N = 8"
    )
    unseen = [trial("a", n, n, unseen_labels=x) for n, x in ((35, 0.368), (20, 0.5), (60, 0.1))]
    assert said(unseen[0], unseen[2]) == (
        "a: 37% of the samples at N = 35 are of labels that no training image has, as protocol=paper draws them"
    )
    assert "50% of the samples at N = 20 " in said(*unseen)


def test_warnings_are_of_the_target_that_is_sought() -> None:
    """A ceiling and a noisy copier of .7 are low for a target of .8, and are not for one of .6."""
    results = [
        trial("a", n, n, ceiling=c, noisy_copier=0.7) for n, c in ((30, 0.95), (35, 0.7), (40, 0.9))
    ]
    said = {}
    for target in (0.8, 0.6):
        one = study("a", VERDICTS["found"], results)
        options = replace(one.options, target=target)
        said[target] = "\n".join(caution_lines(sweep_of(replace(one, options=options))))
    assert said[0.6] == ""
    assert "reaches only R_mem 0.70 at N = 35, below the target 0.8\n" in said[0.8]
    assert "would reach only R_mem 0.70, below the target 0.8 (noisy copier)" in said[0.8]


def test_warnings_begin_where_they_say() -> None:
    """At more than half of the images; at fewer than half of the copied images to be expected."""

    def said(*results: Result) -> str:
        return "\n".join(caution_lines(sweep_of(study("a", VERDICTS["found"], list(results)))))

    for size, share in ((71, None), (69, "51%")):
        few = DataSummary(source="faces", digest="e", size=size, duplicates=0)
        text = said(trial("a", 35, 0, data=few))
        assert text == "" if share is None else f"N = 35 is {share} of the {size} images" in text
    several = [trial("a", 35, i, data=DATA.model_copy(update={"size": 60 + i})) for i in range(2)]
    assert "of the 60 images" in said(*several[::-1])
    assert study("a", VERDICTS["found"], several[::-1]).scale.share == pytest.approx(35.2 / 60)
    copied = [
        trial("a", n, n, distinct_copied=k, distinct_expected=20.0)
        for n, k in ((30, 11), (33, 9), (36, 6), (39, 8))
    ]
    assert said(copied[0]) == ""
    assert "6 distinct ones at N = 36, where even copying would give 20 (3 of 4" in said(*copied)
    one = DataSummary(source="faces", digest="e", size=5000, duplicates=1)
    assert "faces: 1 of 5,000 images equal another one" in said(trial("a", 35, 0, data=one))


def test_two_rules_are_told_where_augmentation_varies() -> None:
    space = SPACE.model_copy(update={"vary": {"trainer.augment": ("none", "flip")}})
    both = [
        study(
            f"augment={a}",
            VERDICTS["found"],
            [trial("a", 35, 0, r_mem_without_flips=x, r_mem_with_flips=y)],
        )
        for a, x, y in (("none", 0.9, 0.92), ("flip", 0.938, 0.974))
    ]
    assert caution_lines(sweep_of(*both, space=space)) == [
        "trainer.augment differs: only where training mirrors images do mirrored copies count; R_mem near the EMM without and "
        "with them, on the same images: augment=none: 0.900 / 0.920; augment=flip: 0.938 / 0.974"
    ]
    assert caution_lines(sweep_of(*both)) == []


def test_more_warnings() -> None:
    uneven = [
        trial("a", n, seed, distinct_copied=k, distinct_expected=20.0)
        for seed, (n, k) in enumerate(((35, 3), (36, 20)))
    ]
    text = "\n".join(caution_lines(sweep_of(study("a", VERDICTS["found"], uneven))))
    assert (
        "3 distinct ones at N = 35, where even copying would give 20 (1 of 2 trials near the EMM)"
        in text
    )
    early = [trial("a", 20, 0, right_censored=True), trial("a", 35, 1)]
    assert caution_lines(sweep_of(study("a", VERDICTS["found"], early)))[0].startswith(
        "a: 1 of 2 trials ended early"
    )
    other = DataSummary(source="faces", digest="e", size=5000, duplicates=0)
    both = [
        study(n, VERDICTS["found"], [trial(n, 35, 0, data=d, nn_distance=x, noisy_copier=y)])
        for n, d, x, y in (("a", DATA, 500.0, 0.99), ("b", other, 50.0, 0.93))
    ]
    searching = study("c", VERDICTS["searching"], [trial("c", 35, 0, data=other)])
    assert caution_lines(sweep_of(both[0], searching)) == [], "nothing is compared"
    assert caution_lines(sweep_of(*both)) == [
        "contrasts across 2 data sets: the rule d1 < k d2 is tighter on denser data (median distance of a training image "
        "to its nearest other one: a: 500; b: 50.0. noisy copier: a: 0.990; b: 0.930)"
    ]


def test_contrasts_say_whether_the_data_are_the_same() -> None:
    other = DataSummary(source="faces", digest="e", size=5000, duplicates=0)
    sizes = (8, 16, 24, 28, 32, 36, 40, 60, 80)
    a, b = (
        curve("width=8", 24, sizes),
        [r.model_copy(update={"data": other}) for r in curve("width=16", 48, sizes)],
    )
    (one,) = summary_of(SPACE, [*a, *b], []).contrasts
    assert not one.same_data


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("50 % of a_b & $c#", r"50 \% of a\_b \& \$c\#"),
        (r"\input{x}", r"\textbackslash input\{x\}"),
        ("1 to 2", "1--2"),
        ("a<b|c>d~^", r"a$<$b$|$c$>$d\textasciitilde \textasciicircum "),
        (
            r"a\ b~ c^ d",
            r"a\textbackslash \space b\textasciitilde \space c\textasciicircum \space d",
        ),
    ],
)
def test_tables_for_latex_are_escaped(text: str, safe: str) -> None:
    lines = latex(("configuration", "EMM"), [(text, "1")]).splitlines()
    assert lines[0] == r"\begin{tabular}{lr}"
    assert f"{safe} & 1 \\\\" in lines


def snapshots(*values: float) -> tuple[Snapshot, ...]:
    return tuple(
        Snapshot(
            images_trained=6400 * i,
            loss=1,
            r_mem=r,
            n_samples=9,
            n_memorized=0,
            median_d1=1,
            seconds=i,
        )
        for i, r in enumerate(values, 1)
    )


def test_the_training_figure_has_a_line_for_every_trial() -> None:
    results = [
        trial("a", n, i, curve=snapshots(0, 0.2, 0.5, 0.9 / (i + 1)))
        for i, n in enumerate((40, 20))
    ]
    axes, below, _ = training_figure(study("a", VERDICTS["found"], results)).axes
    lines = {
        line.get_label(): line.get_xydata().tolist()
        for line in axes.lines
        if str(line.get_label()).startswith("N=")
    }
    small, large = (line.tolist() for line in below.collections[0].get_segments())
    assert large == [[160, 0], [320, 0.2], [480, 0.5], [640, 0.9]]
    assert small[-1] == [1280, 0.45]
    assert below.get_xscale() == "log"
    assert lines["N=40"] == [[0.25, 0], [0.5, 0.2], [0.75, 0.5], [1.0, 0.9]]
    assert lines["N=20"][-1] == [1.0, 0.45]
    assert any(set(line.get_ydata()) == {0.9} for line in axes.lines)


def test_the_cost_figure_shows_images_and_time() -> None:
    results = [
        trial("a", 20, 0, seconds=100),
        trial("a", 30, 1, seconds=80, complete=False, cause="x", images_trained=1000),
    ]
    axes = cost_figure(
        sweep_of(study("a", VERDICTS["found"], results), study("b", VERDICTS["searching"]))
    ).axes[0]
    assert [patch.get_width() for patch in axes.patches] == [25_600, 1000, 0]
    assert [text.get_text().strip() for text in axes.texts] == ["3 min", "0 s"]


def test_the_contrast_figure_shows_the_ratios() -> None:
    sizes = (8, 16, 24, 28, 32, 36, 40, 60, 80)
    summary = summary_of(SPACE, [*curve("width=8", 24, sizes), *curve("width=16", 48, sizes)], [])
    (one,) = summary.compared.shown
    axes = contrast_figure(summary).axes[0]
    assert [[one.ratio, 0]] in [line.get_xydata().tolist() for line in axes.lines]
    ends = [part.get_segments()[0][:, 0].tolist() for part in axes.collections]
    assert ends == [
        pytest.approx([one.together_low, one.together_high]),
        pytest.approx([one.low, one.high]),
    ]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["width 16 / 8"]


@pytest.mark.parametrize(
    ("seconds", "text"), [(48, "48 s"), (204, "3.4 min"), (18_720, "5.2 h"), (1_036_800, "12 d")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_figures_are_named_and_left_out_where_there_is_nothing() -> None:
    assert list(figures_of(sweep_of(study("a/b", VERDICTS["searching"])))) == [
        "emm",
        "study-01-a-b",
    ]
    full = sweep_of(study("a", VERDICTS["found"], [trial("a", 20, 0, curve=snapshots(0.1, 0.2))]))
    assert list(figures_of(full)) == ["emm", "cost", "study-01-a", "training-01-a"]
