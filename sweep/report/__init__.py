"""What people look at: rows, tables, figures, pictures, the page, and the live view of a running
sweep.

Made from an `analysis.SweepSummary`. Never imports MLflow, Ray or Optuna.
"""
