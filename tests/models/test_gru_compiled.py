"""The compiled GRU against `GRUSequence`, which test_gru_sequence.py holds to torch's own."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from rlplatform.models import gru
from rlplatform.models.gru import GRUConfig, GRUEncoder
from rlplatform.models.gru_compiled import CompiledGRUSequence
from rlplatform.models.gru_kernel import gru_kernel
from rlplatform.models.gru_sequence import GRUSequence
from tests.models.test_gru_sequence import NAMES, example, gradients

pytestmark = pytest.mark.skipif(gru_kernel() is None, reason="the installation found no C compiler")


def both(first, leaves, precision=torch.float32):
    keep = None if first is None else (~first).float()[..., None]
    results = []
    for sequence in (CompiledGRUSequence, GRUSequence):
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
            outputs = sequence.apply(leaves[0], keep, *leaves[1:])
        results.append([outputs, *gradients(outputs, leaves)])
    return zip(("h", *NAMES), *results, strict=True)


@settings(max_examples=60, deadline=None)
@given(
    steps=st.integers(1, 9),
    batch=st.integers(1, 5),
    inputs=st.integers(1, 20),
    hidden=st.sampled_from([1, 3, 8, 15, 16, 17, 33]),  # whole vectors of the processor, and what is left over
    ends=st.sampled_from([None, 0.0, 0.3, 1.0]),
    seed=st.integers(0, 2**31),
)
def test_values_and_all_gradients_are_those_of_the_uncompiled_sequence(steps, batch, inputs, hidden, ends, seed):
    leaves = example(steps, batch, inputs, hidden, seed, torch.float32)
    first = None if ends is None else torch.rand(steps, batch) < ends
    for name, compiled, plain in both(first, leaves):
        assert_close(compiled, plain, atol=1e-5, rtol=1e-5, msg=lambda text, name=name: f"{name}: {text}")


def test_bfloat16_products_differ_by_their_rounding_only():
    first = torch.rand(8, 4, generator=torch.Generator().manual_seed(1)) < 0.2
    for name, compiled, plain in both(first, example(8, 4, 16, 16, 0, torch.float32), torch.bfloat16):
        assert compiled.dtype == torch.float32
        scale = float(plain.detach().abs().max())
        assert float((compiled - plain).detach().abs().max()) < 0.02 * scale, name


def test_resets_may_lie_in_memory_as_the_learner_has_them():
    leaves = example(5, 3, 4, 8, 0, torch.float32)
    first = (torch.rand(3, 5, generator=torch.Generator().manual_seed(2)) < 0.4).T  # batch first, seen time first
    for _, compiled, plain in both(first, leaves):
        assert_close(compiled, plain, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("value", [1e4, -1e4, 88.0, -87.3, 1e-30, 0.0])
def test_gates_saturate_as_they_should(value):
    # U = 0 and W = 1: every gate sees `value`. z = σ(value), n = tanh(value), h = (1 − z) n + z h_0.
    x, state = torch.full((1, 1, 1), value), torch.full((1, 1), 0.5)
    h = CompiledGRUSequence.apply(x, None, state, torch.ones(3, 1), torch.zeros(3, 1), torch.zeros(3), torch.zeros(3))
    z, n = torch.sigmoid(torch.tensor(value)), torch.tanh(torch.tensor(value))
    assert_close(h[0, 0, 0], (1 - z) * n + z * 0.5, atol=1e-6, rtol=1e-6)


def test_a_number_that_is_none_stays_none():
    x = torch.tensor([[[float("nan")]], [[0.0]]])
    weights = torch.ones(3, 1), torch.ones(3, 1), torch.zeros(3), torch.zeros(3)
    h = CompiledGRUSequence.apply(x, None, torch.zeros(1, 1), *weights)
    assert torch.isnan(h).all()


def test_without_the_kernel_the_encoder_says_the_same(monkeypatch):
    torch.manual_seed(0)
    encoder = GRUEncoder(GRUConfig(embedding_size=8, hidden_size=8), 5)
    obs, first, state = torch.randn(6, 2, 5), torch.zeros(6, 2, dtype=torch.bool), torch.zeros(2, 8)
    first[3, 1] = True
    compiled, _ = encoder.forward_sequence(obs, first, state)
    asked = []
    monkeypatch.setattr(gru, "gru_kernel", lambda: asked.append(1))
    plain, _ = encoder.forward_sequence(obs, first, state)
    assert asked
    assert_close(compiled, plain, atol=1e-6, rtol=1e-6)
