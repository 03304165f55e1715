"""Results in, answers out: verdicts, contrasts, scale, cautions of a sweep, from its storage alone.

From here is imported `summary.summarize`, which gives a SweepSummary. Never imports Optuna, Ray or
MLflow.
"""
