"""What is kept where: the files of a sweep beside its trials, its place, its lock, its budget, its
priors.

Never imports torch, Optuna, Ray or MLflow.
"""
