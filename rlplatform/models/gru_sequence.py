"""A GRU over a sequence with resets inside, forward and backward by hand.

Autograd would replay a dozen small operations a step and take the weight gradients step by step. Here all that does not
depend on the recurrence is taken over the whole sequence at once, and each step keeps one matrix product and a few
elementwise operations.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable


class GRUSequence(Function):
    """h_1 … h_T of a GRU whose state is zeroed where an episode begins.

        g = k_t h_{t-1},    (a_r, a_z, a_n) = U g + b,    (c_r, c_z, c_n) = W x + d
        r = σ(c_r + a_r),   z = σ(c_z + a_z),   n = tanh(c_n + r ∘ a_n),   h_t = n + z ∘ (g − n)

    Backward, with e = ∂L/∂h_t from the output and from later steps:

        ∂c_n = e ∘ (1 − z)(1 − n²),  ∂a_n = ∂c_n ∘ r,  ∂c_r = ∂a_r = ∂c_n ∘ a_n r(1 − r),  ∂c_z = ∂a_z = e ∘ (g − n) z(1 − z)
        ∂g = e ∘ z + Uᵀ ∂a

    The factors of e are known after the forward pass and are taken for all steps together. The four gradients of a step lie
    side by side as (c_n, r, z, a_n), so that those of W x are its first three and those of U g its last three columns.
    Under `torch.autocast` the matrix products take its type (bfloat16: twice as fast on processors that have it); gates,
    states and sums stay float32.

    Args of `apply`:
        x: (T, B, E).
        keep: k (T, B, 1), 0 where an episode begins and 1 elsewhere, or None when none does.
        state: h_0 (B, H).
        w_input, w_hidden: W (3H, E), U (3H, H), rows in torch's order of gates r, z, n.
        b_input, b_hidden: d, b (3H,).
    """

    @staticmethod
    def forward(ctx, x, keep, state, w_input, w_hidden, b_input, b_hidden) -> Tensor:
        (steps, batch, _), width = x.shape, state.shape[-1]
        product = product_type(x)
        x, w_input, w_hidden = x.to(product), w_input.to(product), w_hidden.to(product)
        inputs = torch.mm(x.reshape(steps * batch, -1), w_input.t()).view(steps, batch, 3 * width)
        inputs = torch.add(inputs, b_input, out=state.new_empty(inputs.shape))
        outputs, before, new = (torch.empty_like(inputs[..., :width]) for _ in range(3))
        gates = torch.empty_like(inputs[..., : 2 * width])
        recurrent = torch.empty_like(inputs)
        transposed = w_hidden.t()
        for t in range(steps):
            if keep is None:
                before[t] = state
            else:
                torch.mul(state, keep[t], out=before[t])
            torch.add(torch.mm(before[t].to(product), transposed), b_hidden, out=recurrent[t])
            torch.add(inputs[t, :, : 2 * width], recurrent[t, :, : 2 * width], out=gates[t]).sigmoid_()
            torch.addcmul(inputs[t, :, 2 * width :], gates[t, :, :width], recurrent[t, :, 2 * width :], out=new[t]).tanh_()
            state = torch.lerp(new[t], before[t], gates[t, :, width:], out=outputs[t])
        ctx.save_for_backward(x, keep, w_input, w_hidden, before, gates, new, recurrent[..., 2 * width :])
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_outputs: Tensor):
        x, keep, w_input, w_hidden, before, gates, new, recurrent_new = ctx.saved_tensors
        steps, batch, width = new.shape
        factors = _factors(before, gates, new, recurrent_new)
        grads = torch.empty_like(factors, dtype=x.dtype)
        later = new.new_zeros(batch, width)
        for t in range(steps - 1, -1, -1):
            error = grad_outputs[t] + later
            torch.mul(error[:, None, :], factors[t], out=grads[t])
            through_product = torch.mm(grads[t].view(batch, 4 * width)[:, width:], w_hidden)
            later = torch.addcmul(through_product, error, gates[t, :, width:])
            if keep is not None:
                later.mul_(keep[t])
        flat = grads.view(steps * batch, 4 * width)
        of_inputs, of_hidden = flat[:, : 3 * width], flat[:, width:]  # gates n, r, z and r, z, n
        w_nrz = torch.cat([w_input[2 * width :], w_input[: 2 * width]])
        grad_x = (of_inputs @ w_nrz).view_as(x) if ctx.needs_input_grad[0] else None
        grad_w_nrz = (of_inputs.t() @ x.reshape(steps * batch, -1)).to(new.dtype)
        grad_w_input = torch.cat([grad_w_nrz[width:], grad_w_nrz[:width]])
        grad_w_hidden = (of_hidden.t() @ before.view(-1, width).to(x.dtype)).to(new.dtype)
        sums = flat.sum(0, dtype=new.dtype)
        grad_b_input = torch.cat([sums[width : 3 * width], sums[:width]])
        return grad_x, None, later, grad_w_input, grad_w_hidden, grad_b_input, sums[width:]


def product_type(x: Tensor) -> torch.dtype:
    """Of matrix products: autocast's type while it is on, else that of x."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


def _factors(before: Tensor, gates: Tensor, new: Tensor, recurrent_new: Tensor) -> Tensor:
    """∂(c_n, r, z, a_n)/∂e of every step, (T, B, 4, H)."""
    reset, update = gates.chunk(2, -1)
    factors = new.new_empty(*new.shape[:2], 4, new.shape[-1])
    to_new = torch.mul(1.0 - update, 1.0 - new * new, out=factors[:, :, 0])
    through_reset = torch.mul(to_new, reset, out=factors[:, :, 3])
    torch.mul(through_reset * (1.0 - reset), recurrent_new, out=factors[:, :, 1])
    torch.mul(update * (1.0 - update), before - new, out=factors[:, :, 2])
    return factors
