"""MLflow, whole: what it is told, how it is written, and its UI for a local sweep.

No other room imports mlflow. From here are imported `place.Destination`, `tracker.Tracker`,
`sync.sync` and `server.serve`.
"""
