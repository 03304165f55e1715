"""What trains: Ray (machines, clusters, jobs, the searcher) and the studies of Optuna that are
behind it.

From here are imported `driver.Run`, `checks.Sweep`, `jobs.Jobs` and `plan.plan`. Never imports
tracking, report or cli: they are handed in as listeners.
"""
