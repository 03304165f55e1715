"""The words of a page, each in a sentence: at the heads of columns and in the glossary at its
end."""

from collections.abc import Iterable

from sweep.analysis.summary import SweepSummary
from trainables.measure.measures import BESIDE_EMM

OF_ALL = {
    "N": "number of training images of a trial",
    "seed": "0, 1, 2 …: decides which images are trained on, the initial weights, and all noise",
    "trial": "one training of one configuration at one N and one seed, with its measurement",
    "R_mem": "share of the generated images that are memorized; it falls as N grows. With >=: the "
    "trial was accepted early, its R_mem is at least that. Its interval is that of sampling alone "
    "(Wilson): the same trained network, other generated images",
    "target": "the R_mem whose crossing is sought",
    "EMM": "effective model memorization: the N at which R_mem, on average over seeds, falls through "
    "the target; up to there a configuration memorizes, beyond it no longer does. < and >: it lies "
    "outside the range of N. Its interval comes from all complete trials of the configuration and "
    "includes the spread over seeds",
    "own trials": "the 95 % interval of the EMM from the configuration's own trials alone; in the "
    "other one, noise and shape of the curve are pooled over the configurations of one recipe, "
    "where at least four were found",
    "verdict": "found: known as precisely as asked, with trials on both sides; below_range, "
    "above_range: the EMM lies beyond the N that were tried; unresolved: given up, for the reason "
    "shown; searching: not finished",
    "reason": "what the verdict rests on; sd is the standard deviation of ln EMM",
    "state": "complete; running: it has started; failed: it has no R_mem, for a cause among the "
    "warnings; stopped: its search was decided without it",
    "images trained": "images that went through training, repeats included",
    "N/|D|": "the EMM, or the N of a trial, as a share of the data set D",
}
OF_LENGTH = {
    "EMM at T/2": "had the training ended halfway, the EMM would have been about that; an "
    "approximation, from the fewer images of the snapshot there, and only where the first half is a "
    "training of half the length",
}
OF_CONTRASTS = {
    "together": "the interval of a ratio that is widened so that those of all contrasts which are "
    "looked at are right at once in 95 of 100 sweeps (max-t)",
    "told apart": "yes, if the interval together excludes 1; alone, if only the ratio's own 95 % "
    "interval does, which is enough for one ratio that was chosen beforehand; whether the intervals of "
    "two EMMs overlap says little",
}
OF_SEEDS = {
    "sd between seeds": "standard deviation of logit R_mem between trials at one N with other seeds",
    "half of the seeds up to N": "the EMM of the median seed: up to it half of the seeds or "
    "more pass the target",
}
OF_ISOLATION = {
    "rho": "Spearman's correlation, over training images, of the number of copies with the distance "
    "to the nearest other one; above 0 isolated images are copied more often",
    "p": "how often rho would be as far from 0 were the copies dealt to the images at random",
    "rho if alike": "what rho would be if all images were copied alike: the rule itself sees copies "
    "of isolated images better",
}
OF_ONSET = {
    "onset": "training images seen (also as epochs, images / N, and as steps) when R_mem first "
    "reaches a level at a snapshot, interpolated between two. <: the first snapshot has it, >: none "
    "has it; of these the fit takes the bound. Of the images of a snapshot, which are few: a trial "
    "whose R_mem lies above a level by its last images may have reached it at none",
    "onsets": "trials of which the onset is known, and only bounded",
    "law": "the one of aN, a + bN and aN^b with the lowest AICc (b of the second in epochs), and "
    "those within 2 of it, which it can't be told from. A law is for the trainings that were made: "
    "where the rate decays, an onset depends on its schedule",
    "sd of ln onset": "how much the onset varies between trials of one N",
}
OF_FEATURES = {
    "threshold": "a score in features below this counts as a copy: 1 % of held-out images fall short "
    "of it, as one half of them shows",
}
# heads of columns that are another word's
SAME = {
    "trials": "trial",
    "ratio": "told apart",
    "R_mem in pixels": "R_mem",
    "R_mem in features": "R_mem",
}


def glossary(summary: SweepSummary) -> dict[str, str]:
    """Word → what it means, of all that the page of a sweep may show."""
    beside = {row.title: row.says for row in BESIDE_EMM.values()}
    scale = beside | OF_LENGTH if any(study.complete for study in summary.studies) else {}
    parts = {
        "contrasts": OF_CONTRASTS if summary.contrasts else {},
        "seeds": OF_SEEDS if any(study.median_seed for study in summary.studies) else {},
        "isolation": OF_ISOLATION if any(study.isolation for study in summary.studies) else {},
        "onset": OF_ONSET if any(one.laws for s in summary.studies for one in s.growth) else {},
        "features": OF_FEATURES if summary.eyes is not None else {},
    }
    return OF_ALL | scale | {word: says for part in parts.values() for word, says in part.items()}


def heads(words: dict[str, str], columns: Iterable[str]) -> dict[str, str]:
    """Head of a column → what its word means, of those that are in the glossary."""
    return {
        column: words[word] for column in columns if (word := SAME.get(column, column)) in words
    }
