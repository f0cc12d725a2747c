import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.testing import assert_close

from rlplatform.models.gru_sequence import GRUSequence

NAMES = ("x", "state", "w_input", "w_hidden", "b_input", "b_hidden")


def example(steps, batch, inputs, hidden, seed=0, dtype=torch.float64):
    """x, h_0 and the weights of a `torch.nn.GRU`, all asking for gradients."""
    torch.manual_seed(seed)
    gru = nn.GRU(inputs, hidden).to(dtype)
    weights = [p.detach().clone() for p in (gru.weight_ih_l0, gru.weight_hh_l0, gru.bias_ih_l0, gru.bias_hh_l0)]
    leaves = [torch.randn(steps, batch, inputs, dtype=dtype), torch.randn(batch, hidden, dtype=dtype), *weights]
    return [leaf.requires_grad_() for leaf in leaves]


def with_torch(first, x, state, w_input, w_hidden, b_input, b_hidden) -> Tensor:
    """The definition: torch's GRU a step at a time, the state zeroed by hand."""
    gru = nn.GRU(x.shape[-1], state.shape[-1]).to(x.dtype)
    weights = {"weight_ih_l0": w_input, "weight_hh_l0": w_hidden, "bias_ih_l0": b_input, "bias_hh_l0": b_hidden}
    outputs = []
    for t in range(len(x)):
        state = torch.where(first[t][:, None], torch.zeros_like(state), state)
        state = torch.func.functional_call(gru, weights, (x[t : t + 1], state[None]))[1][0]
        outputs.append(state)
    return torch.stack(outputs)


def ours(first, x, state, *weights) -> Tensor:
    keep = (~first).to(x.dtype)[..., None] if first.any() else None
    return GRUSequence.apply(x, keep, state, *weights)


def gradients(outputs: Tensor, leaves, seed=1) -> list[Tensor]:
    torch.manual_seed(seed)
    return torch.autograd.grad((outputs * torch.randn_like(outputs)).sum(), leaves)


def test_one_step_by_hand():
    # All weights 0, biases 0: r = z = 1/2, n = 0, so h_1 = h_0 / 2 and h_2 = h_0 / 4; after a reset 0.
    x, state = torch.zeros(2, 2, 1), torch.tensor([[4.0], [8.0]])
    zeros = [torch.zeros(3, 1), torch.zeros(3, 1), torch.zeros(3), torch.zeros(3)]
    keep = torch.tensor([[1.0, 1.0], [1.0, 0.0]])[..., None]
    assert_close(GRUSequence.apply(x, keep, state, *zeros), torch.tensor([[[2.0], [4.0]], [[1.0], [0.0]]]))


@settings(max_examples=30, deadline=None)
@given(
    steps=st.integers(1, 9),
    batch=st.integers(1, 4),
    inputs=st.integers(1, 5),
    hidden=st.integers(1, 5),
    ends=st.sampled_from([0.0, 0.2, 1.0]),
    seed=st.integers(0, 2**31),
)
def test_values_and_all_gradients_are_those_of_torchs_gru_with_resets(steps, batch, inputs, hidden, ends, seed):
    leaves = example(steps, batch, inputs, hidden, seed)
    first = torch.rand(steps, batch) < ends
    left, right = ours(first, *leaves), with_torch(first, *leaves)
    assert_close(left, right, atol=1e-10, rtol=1e-10)
    for name, a, b in zip(NAMES, gradients(left, leaves), gradients(right, leaves), strict=True):
        assert_close(a, b, atol=1e-10, rtol=1e-10, msg=lambda text, name=name: f"gradient of {name}: {text}")


@pytest.mark.parametrize("resets", [False, True])
def test_finite_differences_agree(resets):
    leaves = example(4, 2, 3, 2)
    first = torch.zeros(4, 2, dtype=torch.bool)
    first[0, 1] = first[2, 0] = resets
    assert torch.autograd.gradcheck(lambda *leaves: ours(first, *leaves), leaves)


def test_nothing_flows_back_through_a_reset():
    leaves = example(6, 1, 3, 2)
    first = torch.zeros(6, 1, dtype=torch.bool)
    first[3] = True
    grad_x, grad_state = torch.autograd.grad(ours(first, *leaves)[-1].sum(), leaves[:2])
    assert grad_x[:3].abs().max() == grad_state.abs().max() == 0
    assert grad_x[3:].abs().min() > 0


def test_observations_that_need_no_gradient_get_none():
    x, *rest = example(4, 2, 3, 2)
    x = x.detach()
    ours(torch.zeros(4, 2, dtype=torch.bool), x, *rest).sum().backward()
    assert x.grad is None
    assert all(leaf.grad is not None for leaf in rest)


def test_under_autocast_products_are_bfloat16_and_all_that_leaves_is_float32():
    leaves = example(16, 64, 32, 32, dtype=torch.float32)
    first = torch.rand(16, 64) < 0.1
    exact = ours(first, *leaves)
    with torch.autocast("cpu", torch.bfloat16):
        low = ours(first, *leaves)
    assert low.dtype == torch.float32
    assert 0 < (low - exact).abs().max() < 0.02  # of states in (−1, 1); bfloat16 carries 8 bits
    for name, a, b in zip(NAMES, gradients(low, leaves), gradients(exact, leaves), strict=True):
        assert a.dtype == torch.float32, name
        assert torch.linalg.norm(a - b) < 0.02 * torch.linalg.norm(b), name
