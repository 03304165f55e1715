"""A compiled denoiser: the training, the samples, and what happens without a compiler."""

from functools import partial

import pytest
import torch

from tests.training.test_trainer import CPU, TINY, equal, images, tiny, weights
from trainables.config.fields import with_fields
from trainables.config.measurement import Measurement
from trainables.diffusion.compiled import CompiledDenoiser
from trainables.training.trainer import Trainer


def compiled_tiny(**changes):
    fields = {"network.dropout": 0.0, "trainer.compile": True}
    return Trainer(with_fields(TINY, fields | changes), images(10), 0, CPU)


@pytest.fixture
def without_kernels(monkeypatch):
    """torch.compile takes the network apart and puts it together again, but makes no kernels, which
    takes a minute."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))


@pytest.mark.parametrize("labels", [{}, {"labels.kind": "true", "labels.classes": 2}])
def test_a_compiled_training_is_the_same(without_kernels, labels):
    """Also its last, smaller batch, and samples in batches of any size."""
    how = Measurement(sampler_steps=3)
    numbers = torch.arange(10) % 2 if labels else None
    kind = {"labels.kind": "true"} if labels else {}
    fields = kind | {"network.dropout": 0.0}
    plain = Trainer(with_fields(TINY, fields), images(10), 0, CPU, numbers)
    fast = Trainer(
        with_fields(TINY, fields | {"trainer.compile": True}), images(10), 0, CPU, numbers
    )
    assert isinstance(fast.denoise, CompiledDenoiser)
    assert fast.denoise.batch == 4
    for progress in (0.5, 1.0):
        for trainer in (plain, fast):
            trainer.train_until(progress)
        for one, other in zip(plain.weights, fast.weights, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
        of_samples = None if numbers is None else numbers[:6]
        drawn = [trainer.sample(list(range(6)), how, of_samples) for trainer in (plain, fast)]
        assert (drawn[0].int() - drawn[1].int()).abs().max() <= 1
    errors = [
        trainer.denoising_errors(images(7), 0.3, None if numbers is None else numbers[:7])
        for trainer in (plain, fast)
    ]
    assert errors[0] == pytest.approx(errors[1], rel=1e-4)
    assert fast.take_loss() == pytest.approx(plain.take_loss(), rel=1e-4)


def test_what_is_filled_up_does_not_change_what_is_asked_for(without_kernels):
    fast = compiled_tiny()
    x, sigma = torch.randn(9, 1, 4, 4), torch.rand(9) + 0.1
    whole = fast.denoiser.eval()(x, sigma)
    for size in (1, 3, 4, 5, 9):  # of which four are compiled for, and more take the plain way
        part = fast.denoise.eval()(x[:size].double(), sigma[:size].double())
        assert part.shape == (size, 1, 4, 4)
        torch.testing.assert_close(part, whole[:size])


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_kernels_that_were_made_train_the_same(precision):
    plain = Trainer(
        with_fields(TINY, {"network.dropout": 0.0, "trainer.precision": precision}),
        images(10),
        0,
        CPU,
    )
    fast = compiled_tiny(**{"trainer.precision": precision})
    assert isinstance(fast.denoise, CompiledDenoiser)
    for trainer in (plain, fast):
        trainer.train_until(1.0)
    near = {"fp32": {"rtol": 1e-3, "atol": 1e-5}, "bf16": {"rtol": 0.1, "atol": 5e-3}}[precision]
    for one, other in zip(plain.weights, fast.weights, strict=True):
        torch.testing.assert_close(one, other, **near)


def test_without_a_compiler_it_trains_as_it_is_and_says_so(monkeypatch, caplog):
    monkeypatch.setattr(torch._inductor.config.cpp, "cxx", ("/nowhere/c++",))
    monkeypatch.setattr(torch._inductor.config, "force_disable_caches", True)
    with caplog.at_level("WARNING"):
        trainer = compiled_tiny()
    said = [record for record in caplog.records if record.name.startswith("trainables")]
    assert len(said) == 1
    assert "not compiled, and so slower (" in said[0].getMessage()
    assert "\n" not in said[0].getMessage()
    assert trainer.denoise is trainer.denoiser
    assert all(weight.grad is None for weight in trainer.weights)
    plain = Trainer(with_fields(TINY, {"network.dropout": 0.0}), images(10), 0, CPU)
    for each in (trainer, plain):
        each.train_until(1.0)
    assert equal(weights(trainer), weights(plain))


def test_on_a_cpu_nothing_is_compiled_unless_it_is_asked_for():
    trainer = tiny(10, clock="steps", length=10**6)
    assert trainer.denoise is trainer.denoiser
    assert trainer.weights[0].is_contiguous()
