"""The draw of a token, beside the same draw in float64 over the whole vocabulary."""

import numpy as np
import pytest
import torch

from corewarding.actors.embedded.sampling import BLOCK, sample, uniforms

ALMOST_1 = 1 - 2.0**-53


def rows(n: int, V: int, *, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return 6 * torch.randn(n, V, generator=generator), torch.rand(n, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("V", [3, BLOCK - 1, BLOCK, BLOCK + 1, 5 * BLOCK + 7])
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_tokens_and_logprobs_are_those_of_the_whole_distribution(V: int, temperature: float) -> None:
    logits, draws = rows(400, V, seed=V)
    tokens, logprobs = sample(logits, torch.full((400,), temperature), draws)
    exact = (logits.double() / temperature).log_softmax(-1)
    torch.testing.assert_close(logprobs, exact.gather(-1, tokens[:, None]).squeeze(-1).float(), rtol=1e-6, atol=1e-6)
    cumulative = exact.exp().cumsum(-1)
    after = cumulative.gather(-1, tokens[:, None]).squeeze(-1)
    before = after - exact.gather(-1, tokens[:, None]).squeeze(-1).exp()
    assert bool(((before - 1e-6 <= draws) & (draws < after + 1e-6)).all()), "each draw falls on its token"


def test_a_token_without_probability_is_never_drawn() -> None:
    logits = torch.full((6, 3 * BLOCK), -torch.inf)
    logits[:, [5, BLOCK + 9, 2 * BLOCK - 1]] = 0.0
    draws = torch.tensor([0.0, 1 / 3 - 1e-9, 1 / 3 + 1e-9, 2 / 3 + 1e-9, 0.999, ALMOST_1], dtype=torch.float64)
    tokens, _ = sample(logits, torch.ones(6), draws)
    assert tokens.tolist() == [5, 5, BLOCK + 9, 2 * BLOCK - 1, 2 * BLOCK - 1, 2 * BLOCK - 1]


def test_a_row_draws_the_same_alone_and_among_others() -> None:
    logits, draws = rows(32, 2 * BLOCK + 100, seed=1)
    together = sample(logits, torch.ones(32), draws)
    for row in range(32):
        one = slice(row, row + 1)
        alone = sample(logits[one].clone(), torch.ones(1), draws[one])
        assert [value.tolist() for value in alone] == [value[one].tolist() for value in together]


def test_greedy_takes_the_largest_with_its_logprob_at_temperature_1() -> None:
    logits, draws = rows(16, 700, seed=2)
    tokens, logprobs = sample(logits, torch.zeros(16), draws)
    assert tokens.tolist() == logits.argmax(-1).tolist()
    torch.testing.assert_close(logprobs, logits.log_softmax(-1).max(-1).values)


def test_draws_are_uniform_and_follow_the_distribution() -> None:
    keys = np.arange(20_000, dtype=np.uint64)
    draws = uniforms(keys, np.zeros(20_000, np.int64))
    assert draws.min() >= 0
    assert draws.max() < 1
    assert abs(draws.mean() - 0.5) < 0.01
    probabilities = torch.tensor([0.5, 0.2, 0.2, 0.05, 0.05])
    logits = probabilities.log().expand(20_000, -1)
    tokens, logprobs = sample(logits, torch.ones(20_000), torch.from_numpy(draws))
    expected = probabilities * 20_000
    chi2 = ((torch.bincount(tokens, minlength=5) - expected) ** 2 / expected).sum()
    assert chi2 < 18.5  # 0.1% of chi-square with 4 degrees of freedom
    torch.testing.assert_close(logprobs.exp(), probabilities[tokens])
