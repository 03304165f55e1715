"""Descriptions: frozen pydantic models with a JSON form and an identity. Never imports torch.

`trial.Configuration` and `trial.TrialSpec` are made of the parts that stand in the other modules.
"""
