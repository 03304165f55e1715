"""Where does a share that falls with N, measured by 500 samples of trials whose seeds differ, cross 90 %?

python example.py [DIRECTORY OF THIS PACKAGE]    # without it, from the registry
"""

import math
import random
import sys

import optuna

TRUTH = 700  # where the mean of the share is 90 %


def objective(trial: optuna.Trial) -> float:
    n = trial.suggest_int("n", 8, 10_000, log=True)
    seed = random.Random(trial.number)
    logit = math.log(9) - 3 * math.log(n / TRUTH) + 0.2 * seed.gauss(0, 1)
    share = 1 / (1 + math.exp(-logit))
    trial.set_user_attr("n_samples", 500)
    return sum(seed.random() < share for _ in range(500)) / 500


if __name__ == "__main__":
    import optunahub

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if len(sys.argv) > 1:
        emm = optunahub.load_local_module("samplers/emm", registry_root=sys.argv[1])
    else:
        emm = optunahub.load_module("samplers/emm")
    study = optuna.create_study(direction="maximize", sampler=emm.EmmSampler(low=8, high=10_000))
    study.optimize(objective, n_trials=40, callbacks=[emm.stop_when_decided])
    verdict = emm.study_verdict(study)
    print(
        f"{verdict.state} after {len(study.trials)} trials: {verdict.emm:.0f}"
        f" [{verdict.emm_low:.0f}, {verdict.emm_high:.0f}]; the truth is {TRUTH}"
    )
