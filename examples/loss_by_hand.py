"""The objective on three tokens, beside the same numbers worked out by hand.

The formulas are in docs/algorithm.md, "Loss with importance correction".
"""

import math

import torch

from corewarding.learner.objective.loss import TokenBatch, objective
from corewarding.learner.settings import CorrectionSettings, LossSettings

# Two completions: the first has tokens 0 and 1 and advantage +1, the second has token 2 and advantage -1.
policy = torch.tensor([-1.0, -2.0, -0.5], requires_grad=True)  # log pi, under the weights that are trained
behavior = torch.tensor([-1.0, -2.0 - math.log(3), -0.5 - math.log(0.8)])  # log mu, under the weights that sampled
reference = torch.tensor([-1.0, -2.0, -0.5 - math.log(2)])  # log ref, of the KL term

batch = TokenBatch(
    behavior_T=behavior,
    advantage_T=torch.tensor([1.0, 1.0, -1.0]),
    mask_T=torch.tensor([True, True, True]),
    weight_T=torch.full((3,), 1 / 3),  # token_mean: one over the loss tokens of the update
    age_T=torch.tensor([0.0, 2.0, 1.0]),  # updates between sampling and training
    sequence_T=torch.tensor([0, 0, 1]),
    num_sequences=2,
)
result = objective(
    policy, batch, reference_T=reference, beta=0.1, loss=LossSettings(), correction=CorrectionSettings(cap=2.0)
)
result.loss.backward()

# Decoupled correction: old is the policy itself, so the ratio is 1 and the surrogate is the advantage.
# rho = pi / mu = (1, 3, 0.8), and w truncates it at cap = 2.
weights = [1.0, 2.0, 0.8]
gains = [1.0 * 1, 2.0 * 1, 0.8 * -1]
# k3 = exp(d) - d - 1 with d = log ref - log pi = (0, 0, -log 2).
kls = [0.0, 0.0, 0.5 + math.log(2) - 1]
loss = -sum(gain - 0.1 * kl for gain, kl in zip(gains, kls, strict=True)) / 3
# d gain / d log pi = w * A, and d k3 / d log pi = 1 - exp(d).
gradient = [-1 / 3, -2 / 3, (0.8 + 0.1 * (1 - 0.5)) / 3]

for name, ours, by_hand in [
    ("weights", result.correction.weight_T, weights),
    ("gains", result.gain_T, gains),
    ("KL", result.kl_T, kls),
    ("loss", result.loss.reshape(1), [loss]),
    ("gradient", policy.grad, gradient),
]:
    print(f"{name:<9}", [round(value, 4) for value in ours.tolist()], [round(value, 4) for value in by_hand])
    torch.testing.assert_close(ours.detach(), torch.tensor(by_hand), atol=1e-6, rtol=0)
