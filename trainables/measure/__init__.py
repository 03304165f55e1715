"""Nearest neighbours, R_mem, and what is measured beside it. Only `neighbours`, `features` and
`distances` import torch."""
