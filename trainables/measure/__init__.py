"""Nearest neighbours, R_mem, and what is measured beside it. `r_mem` never imports torch."""
