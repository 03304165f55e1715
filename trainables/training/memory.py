"""Memory of tensors on the CPU, as glibc gives it (mallopt(3))."""

import ctypes

import torch

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h
KEPT = 2**30  # bytes that are free and not given back
LARGEST = 2**25  # bytes of a piece that may be kept; the most that the manual allows


def keep_freed(device: torch.device) -> None:
    """Lets this process keep a GiB of what it frees, from now on, if it trains on the CPU.

    glibc gives large pieces back to the system, which maps and clears them anew in each step: a
    fifteenth of the time of a small one (docs/performance.md). Of other C libraries nothing is
    asked.
    """
    if device.type != "cpu":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_TRIM_THRESHOLD, KEPT)
        mallopt(M_MMAP_THRESHOLD, LARGEST)
