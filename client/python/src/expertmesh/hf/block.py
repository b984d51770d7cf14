"""The module that stands where a MoE block was, and calls the mesh."""

from __future__ import annotations

from typing import Any, Optional, Protocol

import torch
from torch import nn

from expertmesh import errors
from expertmesh.hf import context
from expertmesh.hf.families import Answer, Family
from expertmesh.types import ForwardOptions


class Mesh(Protocol):
    """What a block needs of its attachment."""

    def forward(self, layer: int, rows: torch.Tensor, options: ForwardOptions) -> torch.Tensor:
        """rows: [tokens, d_model] -> the same shape and dtype."""


class _WithoutGradient(torch.autograd.Function):
    """The mesh computes no gradients: a wrong one must not pass for a right one."""

    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, block: MeshBlock, mask: Any) -> torch.Tensor:
        ctx.layer = block.layer
        return block.compute(hidden, mask)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        raise errors.FailedPrecondition(
            f"the mesh computes no gradients, and layer {ctx.layer} is computed by it; detach the model "
            "before training it"
        )


class MeshBlock(nn.Module):
    """Stands for the MoE block of `layer`. Has no parameters.

    Takes [..., d_model] in the model's dtype (float32, float16, bfloat16), on any device; answers in the
    same shape, dtype and device, in the form that the family's decoder layer expects; router logits are
    None. Raises what `expertmesh.Client.forward` raises.
    """

    def __init__(self, family: Family, layer: int) -> None:
        super().__init__()
        self.expertmesh_family = family
        self.layer = layer
        self.mesh: Optional[Mesh] = None
        # A new module is in training mode, and this one is most often made inside a model that is not.
        self.eval()

    def extra_repr(self) -> str:
        state = "attached" if self.mesh is not None else "no weights, not attached"
        return f"{self.expertmesh_family.names[0]}, layer={self.layer}, {state}"

    # Compilers would try to trace a remote call.
    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def forward(self, hidden: torch.Tensor, mask: Optional[torch.Tensor] = None) -> Any:
        """hidden: [..., d_model]. mask: the attention mask, for families that hand it to the block."""
        if self.training:
            raise errors.FailedPrecondition(
                f"layer {self.layer} is computed by the mesh, which does not train; call model.eval()"
            )
        if hidden.requires_grad and torch.is_grad_enabled():
            output = _WithoutGradient.apply(hidden, self, mask)  # type: ignore[no-untyped-call]
        else:
            output = self.compute(hidden, mask)
        answer = self.expertmesh_family.answer
        if answer is Answer.PAIR:
            return output, None
        if answer is Answer.FLAT_PAIR:
            return output.reshape(-1, output.shape[-1]), None
        if answer is Answer.NESTED:
            return output, (None, None)
        return output

    def compute(self, hidden: torch.Tensor, mask: Optional[torch.Tensor]) -> torch.Tensor:
        """[..., d_model] -> the same shape, dtype and device."""
        if self.mesh is None:
            raise errors.FailedPrecondition(
                f"layer {self.layer} has no weights here and no mesh: call expertmesh.hf.attach"
            )
        rows = hidden.detach().reshape(-1, hidden.shape[-1])
        keep = None
        if self.expertmesh_family.padding and mask is not None:
            keep = real_tokens(mask, hidden.shape[0], hidden.shape[1]).to(rows.device)
            rows = rows[keep]
        group_sizes = None
        if self.expertmesh_family.by_sequence and hidden.dim() == 3 and hidden.shape[0] > 1:
            group_sizes = [hidden.shape[1]] * hidden.shape[0]
        traceparent, tracestate = context.current_trace()
        options = ForwardOptions(
            timeout=context.time_left(None, self.layer),
            traceparent=traceparent,
            tracestate=tracestate,
            group_sizes=group_sizes,
        )
        output = self.mesh.forward(self.layer, rows, options)
        output = output.to(device=hidden.device, dtype=hidden.dtype)
        if keep is not None:
            whole = output.new_zeros(keep.shape[0], hidden.shape[-1])
            whole[keep] = output
            output = whole
        return output.reshape(hidden.shape)


def real_tokens(mask: torch.Tensor, batch: int, sequence: int) -> torch.Tensor:
    """[batch * sequence] bool: which tokens are no padding, from any form of attention mask.

    mask: [batch, keys] with 1 for real tokens; or [batch, 1, queries, keys], either bool with True for
    what is seen, or additive with 0 for what is seen. The last query sees every real token.
    """
    if mask.dim() == 4:
        last = mask[:, 0, -1, :]
        seen = last if last.dtype == torch.bool else last == 0
    else:
        seen = mask.bool()
    # Keys of earlier calls (a cache) come first.
    return seen[:, -sequence:].expand(batch, sequence).reshape(-1)
