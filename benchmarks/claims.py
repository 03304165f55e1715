"""The questions of docs/findings.md: claims of the literature, and open ones, each with the command
that asks it."""

from __future__ import annotations

from dataclasses import dataclass

GU = "Gu et al. 2023, arXiv 2310.02664"
BONNAIRE = "Bonnaire et al. 2025, arXiv 2505.17638"
THOROUGH = " --effort thorough --set search.max_trials=40"
SEEDS = "Seeds differ as much as many effects: what is not told apart may still be different by a third."


@dataclass(frozen=True)
class Claim:
    """`more` memorizes more than `less`, at a target; `source`: who says so, None of an open
    question, which is then asked of both sides."""

    says: str
    more: str
    less: str
    source: str | None
    target: float = 0.9


@dataclass(frozen=True)
class Question:
    """One sweep: its kept summary, the command that makes it, what limits it."""

    name: str
    title: str
    command: str
    claims: tuple[Claim, ...]
    limits: str
    is_new: bool = False  # nobody is known to us who gives an EMM of this
    with_density: bool = False  # how close images lie, which the rule hangs on, is shown
    trained_on: str = "one core"  # what each trial had


QUESTIONS = (
    Question(
        "width",
        "Does a wider network memorize more?",
        f"emm run docs/examples/widths.yaml --targets .5{THOROUGH}",
        (
            Claim("width 8 memorizes more than width 4", "width=8", "width=4", GU),
            Claim("width 12 more than 8", "width=12", "width=8", GU),
            Claim("width 16 more than 12", "width=16", "width=12", GU),
            Claim("width 16 more than 8", "width=16", "width=8", GU),
            Claim("width 16 more than 4", "width=16", "width=4", GU),
            Claim("width 8 more than width 4", "width=8", "width=4", GU, 0.5),
            Claim("width 12 more than 8", "width=12", "width=8", GU, 0.5),
        ),
        "Digits of 8×8, 400 steps for every N.",
    ),
    Question(
        "labels",
        "Do labels raise memorization, and do they have to mean something?",
        f"emm run digits-labels --targets .5{THOROUGH}",
        (
            Claim("true labels raise it", "labels=true", "labels=none", GU),
            Claim("random labels raise it as well", "labels=random 10", "labels=none", GU),
            Claim("random labels as true ones", "labels=random 10", "labels=true", None),
            Claim("true labels raise it", "labels=true", "labels=none", GU, 0.5),
            Claim("random as true", "labels=random 10", "labels=true", None, 0.5),
        ),
        SEEDS,
    ),
    Question(
        "unique",
        "A label of its own for every image",
        f"emm run digits-unique --targets .5{THOROUGH}",
        (Claim("unique labels raise it", "labels=unique", "labels=none", GU),),
        SEEDS,
    ),
    Question(
        "skip-resolution",
        "Skip connections of which resolution?",
        f"emm run digits-skip-resolution{THOROUGH}",
        (
            Claim("those of the highest resolution matter most", "skips=8x8", "skips=4x4", GU),
            Claim("all are better than the highest alone", "skips=all", "skips=8x8", None),
        ),
        "Two resolutions, 8×8 and 4×4.",
    ),
    Question(
        "dit",
        "A transformer or a convolutional network?",
        f"emm run digits-dit{THOROUGH}",
        (Claim("the U-Net memorizes more", "network=ddpmpp", "network=dit", None),),
        "400 steps, after which the transformer copies nothing at N = 8; more steps and as many parameters: below.",
    ),
    Question(
        "flow",
        "Flow matching or diffusion?",
        f"emm run digits-flow{THOROUGH}",
        (Claim("flow memorizes more than EDM", "law=flow", "law=edm", None),),
        SEEDS,
        is_new=True,
    ),
    Question(
        "embedding",
        "Positional or Fourier time embedding?",
        f"emm run digits-embedding{THOROUGH}",
        (Claim("positional more", "time_embedding=positional", "time_embedding=fourier", GU),),
        SEEDS,
    ),
    Question(
        "depth",
        "Does depth matter?",
        f"emm run digits-depth{THOROUGH}",
        (Claim("two blocks per resolution more than one", "depth=2", "depth=1", None),),
        "The paper finds that EMM is not monotone in the depth, from 2 to 12; two values can't show that.",
    ),
    Question(
        "resolution",
        "Are smaller images memorized more?",
        f"emm run digits-resolution{THOROUGH}",
        (Claim("4×4 more than 8×8", "resolution=4", "resolution=8", GU),),
        "The rule is stricter where images lie closer together, which they do at 4×4. Summaries of the paper say that "
        "data of higher dimension are memorized more; its figure shows the opposite: 7,600 at 8×8, 4,500 at 16×16, 1,060 at "
        "32×32.",
        with_density=True,
    ),
    Question(
        "classes",
        "Does the number of classes matter?",
        f"emm run digits-classes{THOROUGH}",
        (Claim("one class more than ten", "classes=1", "classes=10", None),),
        "Images of one class lie closer together, where the rule is stricter.",
        with_density=True,
    ),
    Question(
        "weight-decay",
        "Does weight decay prevent memorization?",
        f"emm run digits-weight-decay{THOROUGH}",
        (Claim("without decay more", "weight_decay=0", "weight_decay=0.01", None),),
        SEEDS,
    ),
    Question(
        "ema",
        "Does averaging the weights matter?",
        f"emm run digits-ema{THOROUGH}",
        (Claim("averaged more than not", "ema_decay=0.98", "ema_decay=0", None),),
        SEEDS,
    ),
    Question(
        "batch",
        "Does the batch matter at a fixed ratio of rate to batch?",
        f"emm run digits-batch{THOROUGH}",
        (Claim("the smaller batch more", "batch=32", "batch=64", None),),
        "At a fixed number of steps: the larger batch sees twice as many images.",
    ),
    Question(
        "augment",
        "Do random mirror images prevent copies?",
        f"emm run digits-augment{THOROUGH}",
        (Claim("without mirroring more", "augment=none", "augment=flip", None),),
        "With mirror images, a mirrored copy counts as one.",
        is_new=True,
    ),
    Question(
        "duplicates",
        "Do duplicated images raise memorization?",
        f"emm run digits-duplicates{THOROUGH}",
        (Claim("each image twice more", "copies=all x2", "copies=none", None),),
        "N counts the copies: of different images it is half of it, which is what is memorized of single ones.",
        is_new=True,
    ),
    Question(
        "optimizer",
        "Adam or AdamW?",
        f"emm run digits-optimizer{THOROUGH}",
        (Claim("Adam more than AdamW", "optimizer=adam", "optimizer=adamw", None),),
        SEEDS,
        is_new=True,
    ),
    Question(
        "loss",
        "Does the noise law matter?",
        f"emm run digits-loss{THOROUGH}",
        (Claim("the wider law more", "law=edm", "law=edm narrow", None),),
        SEEDS,
        is_new=True,
    ),
    Question(
        "noise-level",
        "Does it matter at which noise levels a model is trained?",
        f"emm run digits-noise-level{THOROUGH}",
        (
            Claim("the middle more than lower noise", "P_mean=-1.3", "P_mean=-2", None),
            Claim("the middle more than higher noise", "P_mean=-1.3", "P_mean=-0.6", None),
        ),
        "The middle one is the recipe's, chosen so that short trainings copy.",
        is_new=True,
    ),
    Question(
        "noise-spread",
        "Does it matter how widely noise levels are spread?",
        f"emm run digits-noise-spread{THOROUGH}",
        (
            Claim("the middle more than a narrow one", "P_std=0.5", "P_std=0.25", None),
            Claim("the middle more than a wide one", "P_std=0.5", "P_std=1", None),
        ),
        "The middle one is the recipe's, chosen so that short trainings copy.",
        is_new=True,
    ),
    Question(
        "mix",
        "Does it matter that half of the images come from another source?",
        f"emm run digits-mix{THOROUGH}",
        (Claim("one source more than two", "share=0", "share=0.5", None),),
        "The other source is MNIST, at 8×8.",
        with_density=True,
    ),
    Question(
        "noise-draws",
        "How many noise draws does a training image need?",
        f"emm run digits-noise-draws{THOROUGH}",
        (
            Claim("new draws always more than ten for good", "draws=new", "draws=10", None),
            Claim("more than thirty", "draws=new", "draws=30", None),
            Claim("more than a hundred", "draws=new", "draws=100", None),
        ),
        SEEDS,
        is_new=True,
    ),
    Question(
        "skip-count",
        "How many skip connections does memorization need?",
        f"emm run digits-skip-count{THOROUGH}",
        (
            Claim("one more than none", "skips=1", "skips=0", GU),
            Claim("all four more than one", "skips=4", "skips=1", None),
        ),
        "Removed connections are those farthest from the input.",
    ),
    Question(
        "length",
        "Does longer training memorize more?",
        f"emm run digits-length --targets .5{THOROUGH}",
        (
            Claim("400 steps more than 200", "length=400", "length=200", BONNAIRE),
            Claim("800 steps more than 400", "length=800", "length=400", BONNAIRE),
            Claim("400 steps more than 200", "length=400", "length=200", BONNAIRE, 0.5),
            Claim("800 steps more than 400", "length=800", "length=400", BONNAIRE, 0.5),
        ),
        "They find that copies begin after a number of steps proportional to N: where nothing else ends it, "
        "twice the steps would be twice the EMM. The rate rises over a quarter of each length, and falls over the rest. "
        "Before, all lengths warmed up over 100 steps, of which 200 never reach the whole rate: 2.67 and 1.73 at .9.",
    ),
    Question(
        "laws",
        "EDM, VP or flow matching, each as its paper has it?",
        f"emm run docs/examples/laws.yaml{THOROUGH}",
        (
            Claim("VP more than EDM", "law=vp", "law=edm", None),
            Claim("flow more than EDM", "law=flow", "law=edm", None),
            Claim(
                "logit-normal times more than uniform", "law=flow logit-normal", "law=flow", None
            ),
        ),
        "The same rate and steps for all, chosen for EDM with the schedule that the recipe had at first.",
        is_new=True,
    ),
    Question(
        "parameters",
        "A U-Net, a transformer or a perceptron, of as many parameters?",
        "emm run docs/examples/parameters.yaml",
        (
            Claim("the U-Net more than the transformer", "network=ddpmpp", "network=dit", None),
            Claim("the U-Net more than the perceptron", "network=ddpmpp", "network=mlp", None),
        ),
        "45,700, 53,500 and 54,600 parameters, 2,400 steps, all at a rate of 2e-2, the highest that was "
        "tried and the one at which transformer and perceptron copy most at N = 8: they may be trained too little. "
        "With the schedule that the recipe had at first.",
        is_new=True,
    ),
    Question(
        "mnist",
        "Width again, on MNIST with a perceptron",
        f"emm run docs/examples/mnist.yaml --targets .5{THOROUGH}",
        (
            Claim("width 256 more than 128", "width=256", "width=128", GU),
            Claim("width 512 more than 256", "width=512", "width=256", GU),
            Claim("width 256 more than 128", "width=256", "width=128", GU, 0.5),
            Claim("width 512 more than 256", "width=512", "width=256", GU, 0.5),
        ),
        "14×14, 1,500 steps for every N.",
    ),
    Question(
        "photographs",
        "Width again, on colour photographs",
        "emm run docs/examples/photographs.yaml",
        (
            Claim("width 8 memorizes more than width 4", "width=8", "width=4", GU, 0.5),
            Claim("width 16 more than 8", "width=16", "width=8", GU, 0.5),
            Claim("width 8 memorizes more than width 4", "width=8", "width=4", GU),
            Claim("width 16 more than 8", "width=16", "width=8", GU),
        ),
        "Patches of five photographs at 8×8; three others lie so dense that a faithful copy fails the "
        "rule. Some patches of these do as well, so that at .9 R_mem hangs on which were chosen, and "
        "the search was asked for a half. Seeds differ there by 1.1 on the logit at width 4, .1 at 8, .7 at 16.",
        with_density=True,
    ),
    Question(
        "photographs32",
        "Width at 32×32, on a GPU",
        "emm run docs/examples/photographs32.yaml --workers 5 --gpus-per-trial .2",
        (
            Claim("width 32 memorizes more than width 16", "width=32", "width=16", GU, 0.5),
            Claim("width 64 more than 32", "width=64", "width=32", GU, 0.5),
        ),
        "An NVIDIA H100, in bf16, compiled: 8 minutes from the command to the prompt. "
        "2,000 steps for every width, of .3, 1.2 and 4.9 million parameters. "
        "One training at width 64 broke down (loss .70, others .03 in the median) and counts.",
        with_density=True,
        trained_on="a fifth of the card",
    ),
    Question(
        "warm-start",
        "Does a model that was trained on other images before memorize more?",
        f"emm run warm_start.py --targets .5{THOROUGH}",
        (
            Claim("pretrained more than from scratch", "start=pretrained", "start=scratch", None),
            Claim(
                "pretrained more than from scratch", "start=pretrained", "start=scratch", None, 0.5
            ),
        ),
        "Before: 1,200 steps on 4,000 images of MNIST at 8×8; then the same 400 steps for both.",
        is_new=True,
    ),
    Question(
        "pair",
        "Do two models of disjoint images draw the same image?",
        "emm run digits-pair" + THOROUGH,
        (),
        "By chance one in 500 would be the same: each image is compared with the 500 of the other "
        "model. Faces of 80×80 (Kadkhodaie et al. 2023, arXiv 2310.02557) need 100,000 images for what "
        "small digits show from N = 64 on.",
    ),
)
