"""How the demo model's weights move: Muon for matrices, AdamW for the rest, one schedule for both."""

import torch


class Muon(torch.optim.Optimizer):
    """Momentum whose matrices are made orthogonal (Jordan et al., 2024), with stacks of matrices as one batch.

    torch.optim.Muon takes one matrix at a time; the experts of a layer are a stack.
    """

    def __init__(self, parameters, lr, momentum=0.95, weight_decay=0.0):
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for parameter in group["params"]:
                average = self.state[parameter].setdefault("average", torch.zeros_like(parameter))
                average.lerp_(parameter.grad, 1 - group["momentum"])
                update = _orthogonal(parameter.grad.lerp(average, group["momentum"]))
                shape = max(1.0, parameter.shape[-2] / parameter.shape[-1]) ** 0.5
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(update, alpha=-group["lr"] * shape)


def _orthogonal(matrices):
    """The nearest orthogonal matrices, roughly: five Newton-Schulz steps with Jordan's coefficients."""
    x = (matrices / (matrices.norm(dim=(-2, -1), keepdim=True) + 1e-7)).bfloat16()
    tall = x.shape[-2] > x.shape[-1]
    if tall:
        x = x.mT
    for _ in range(5):
        square = x @ x.mT
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return (x.mT if tall else x).float()


class Optimizer:
    """Both optimizers. `step(progress)` with the share of training that is done, 0 to 1."""

    WARM_UP, COOL_DOWN = 0.02, 0.6

    def __init__(self, network):
        gates, matrices, others = [], [], []
        for name, parameter in network.named_parameters():
            if name.endswith("experts.gate"):
                gates.append(parameter)
            elif name.startswith("blocks.") and parameter.dim() >= 2 and not name.endswith("norms"):
                matrices.append(parameter)
            else:
                others.append(parameter)
        adam = {"betas": (0.9, 0.95), "weight_decay": 0.0, "fused": True}
        self.parts = [
            Muon(matrices, lr=0.02, weight_decay=0.02),
            torch.optim.AdamW(others, lr=3e-3, **adam),
            # Slow enough for the bias to follow: gates that run ahead send all tokens to a few experts.
            torch.optim.AdamW(gates, lr=3e-4, **adam),
        ]
        self.peaks = [part.param_groups[0]["lr"] for part in self.parts]

    def step(self, progress):
        rate = min(1.0, progress / self.WARM_UP, (1.0 - progress) / self.COOL_DOWN)
        for part, peak in zip(self.parts, self.peaks):
            part.param_groups[0]["lr"] = peak * max(rate, 0.01)
            part.step()
            part.zero_grad()

    def state_dict(self):
        return [part.state_dict() for part in self.parts]

    def load_state_dict(self, states):
        for part, state in zip(self.parts, states):
            part.load_state_dict(state)
