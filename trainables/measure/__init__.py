"""Nearest neighbours, R_mem, and what is measured beside it. Only `neighbours` and `distances`
import torch."""
