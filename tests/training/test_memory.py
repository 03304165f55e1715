"""Whether a process maps its memory anew, as the system counts it."""

import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys
import torch
from search_spaces.recipes import DIGITS
from trainables.training import trainer

if sys.argv[1] == "as torch has it":
    trainer.keep_freed = lambda device: None
torch.set_num_threads(1)
images = torch.randint(0, 256, (24, 1, 8, 8), dtype=torch.uint8)
training = trainer.Trainer(DIGITS, images, 0, torch.device("cpu"))

def faults_after(steps):
    training.train_until((training.position + steps * DIGITS.trainer.batch) / training.total)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

before = faults_after(10)
print((faults_after(20) - before) / 20)
"""


def faults_of_a_step(way):
    command = [sys.executable, "-c", FAULTS, way]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="asks glibc")
def test_a_step_on_a_cpu_maps_no_memory_anew():
    assert faults_of_a_step("as a trial has it") < 50
    assert faults_of_a_step("as torch has it") > 200
