"""`GRUSequence` with compiled steps: the same formulas, one pass over memory a step."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from rlplatform.models.gru_kernel import GRUKernel, gru_kernel, rows
from rlplatform.models.gru_sequence import product_type


class CompiledGRUSequence(Function):
    """Arguments, result and arithmetic of `GRUSequence`, on the CPU, float32 outside the matrix products."""

    @staticmethod
    def forward(ctx, x, keep, state, w_input, w_hidden, b_input, b_hidden) -> Tensor:
        (steps, batch, _), width = x.shape, state.shape[-1]
        product, keep = product_type(x), None if keep is None else keep.to(state.dtype).contiguous()
        x, w_input, w_hidden = x.to(product).contiguous(), w_input.to(product), w_hidden.to(product)
        inputs = torch.mm(x.view(steps * batch, -1), w_input.t()).view(steps, batch, 3 * width)
        before, *gates, outputs = state.new_empty(6, steps, batch, width)  # gates: reset, update, new, recurrent_new
        before[0] = state if keep is None else state * keep[0]
        low = before
        if product != before.dtype:
            low = torch.empty_like(before, dtype=product)
            low[0] = before[0]
        _forward_steps(inputs, keep, before, low, (*gates, outputs), w_hidden, b_input, b_hidden)
        ctx.save_for_backward(x, keep, w_input, w_hidden, low, before, *gates)
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_outputs: Tensor):
        x, keep, w_input, w_hidden, low, before, *gates = ctx.saved_tensors
        steps, batch, width = before.shape
        grads = x.new_empty(steps, batch, 4 * width)
        grad_state, sums = _backward_steps(grad_outputs.contiguous(), keep, before, gates, w_hidden, grads)
        flat = grads.view(steps * batch, 4 * width)
        of_inputs, of_hidden = flat[:, : 3 * width], flat[:, width:]  # gates n, r, z and r, z, n
        w_nrz = torch.cat([w_input[2 * width :], w_input[: 2 * width]])
        grad_x = (of_inputs @ w_nrz).view_as(x) if ctx.needs_input_grad[0] else None
        grad_w_nrz = (of_inputs.t() @ x.view(steps * batch, -1)).to(sums.dtype)
        grad_w_hidden = (of_hidden.t() @ low.view(-1, width)).to(sums.dtype)
        grad_w_input, grad_b_input = (torch.cat([g[width : 3 * width], g[:width]]) for g in (grad_w_nrz, sums))
        return grad_x, None, grad_state, grad_w_input, grad_w_hidden, grad_b_input, sums[width:]


def _kernel() -> GRUKernel:
    kernel = gru_kernel()
    if kernel is None:
        raise RuntimeError(
            "CompiledGRUSequence has no kernel here; ask gru_kernel() first, and take GRUSequence where there is none."
        )
    return kernel


def _forward_steps(inputs, keep, before, low, results, w_hidden, b_input, b_hidden) -> None:
    """Fill `results` (gates and outputs), and `before` and `low` from their second row on."""
    (steps, batch, width), kernel = before.shape, _kernel()
    recurrent, transposed = torch.empty_like(inputs[0]), w_hidden.t()
    (wx, wx_step), (g, g_step), (g_low, low_step) = rows(inputs), rows(before), rows(low)
    k, k_step = (None, 0) if keep is None else rows(keep)
    biases = b_input.data_ptr(), b_hidden.data_ptr()
    addresses = [tensor.data_ptr() for tensor in results]
    for t in range(steps):
        torch.mm(low[t], transposed, out=recurrent)
        following = t + 1 < steps
        kernel.forward(
            inputs.dtype,
            batch,
            width,
            wx + t * wx_step,
            recurrent.data_ptr(),
            *biases,
            g + t * g_step,
            k + (t + 1) * k_step if k is not None and following else None,
            *(address + t * g_step for address in addresses),
            g + (t + 1) * g_step if following else None,
            g_low + (t + 1) * low_step if following else None,
        )


def _backward_steps(grad_outputs, keep, before, gates, w_hidden, grads) -> tuple[Tensor, Tensor]:
    """Fill `grads` (T, B, 4H); the gradient of the first state (B, H) and the sums of `grads` over time and accounts (4H,)."""
    (steps, batch, width), kernel = before.shape, _kernel()
    carry, sums = before.new_empty(batch, width), before.new_zeros(steps, 4 * width)
    through = grads.new_empty(batch, width)
    (grad, step), (gradients, gradients_step), (total, total_step) = rows(grad_outputs), rows(grads), rows(sums)
    k, k_step = (None, 0) if keep is None else rows(keep)
    addresses = [tensor.data_ptr() for tensor in (before, *gates)]
    for t in range(steps - 1, -1, -1):
        last = t + 1 == steps
        kernel.backward(
            grads.dtype,
            batch,
            width,
            grad + t * step,
            None if last else through.data_ptr(),
            None if last or k is None else k + (t + 1) * k_step,
            *(address + t * step for address in addresses),
            carry.data_ptr(),
            gradients + t * gradients_step,
            total + t * total_step,
        )
        torch.mm(grads[t][:, width:], w_hidden, out=through)
    grad_state = through.to(carry.dtype).add_(carry)
    return (grad_state if keep is None else grad_state.mul_(keep[0])), sums.sum(0)
