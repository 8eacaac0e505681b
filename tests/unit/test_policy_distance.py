# SPDX-License-Identifier: Apache-2.0
"""The KL term: where its estimators have a gradient, what it is in expectation, the share of tokens at the clamp."""

from __future__ import annotations

import pytest
import torch
from made_config import composed
from verl.trainer.ppo.core_algos import kl_penalty

from recipe.hiper.trainer.policy_distance import KL_CLAMP, kl_clamped_fraction

DIFFERENCES = (-12.0, -11.0, -8.0, -2.0, -0.5, 0.0, 0.5, 2.0, 2.5, 2.7, 5.0, 12.0)
"""log q - log p of a token: how much more likely it is under the reference q than under the policy p, in nats."""


def value_and_gradient(kind: str, difference: float) -> tuple[float, float]:
    """Of one token; the gradient with respect to the policy's log-probability."""
    log_prob = torch.tensor([-0.7], dtype=torch.float64, requires_grad=True)
    value = kl_penalty(log_prob, log_prob.detach() + difference, kind).sum()
    value.backward()
    return float(value), float(log_prob.grad)


def test_the_estimator_of_the_presets_has_no_hole():
    """The table of docs/algorithm.md: the same values as low_var_kl, and a gradient wherever the two differ."""
    for difference in DIFFERENCES:
        plain_value, plain = value_and_gradient("low_var_kl", difference)
        value, gradient = value_and_gradient("low_var_kl+", difference)
        assert value == plain_value
        assert gradient == pytest.approx(-difference)
        if difference >= 2.7 or difference <= -11:
            assert plain_value == KL_CLAMP and plain == 0.0
        else:
            assert plain == pytest.approx(1 - torch.tensor(difference, dtype=torch.float64).exp().item())


def test_its_expected_gradient_is_that_of_the_kl_divergence():
    """Over all tokens of a small vocabulary, each with its probability; low_var_kl follows that of KL(q || p)."""
    torch.manual_seed(0)
    logits = torch.randn(6, dtype=torch.float64, requires_grad=True)
    reference = torch.log_softmax(torch.randn(6, dtype=torch.float64), dim=0)

    def gradient(loss: torch.Tensor) -> torch.Tensor:
        (result,) = torch.autograd.grad(loss, logits)
        return result

    def expected(kind: str) -> torch.Tensor:
        log_probs = torch.log_softmax(logits, dim=0)
        return gradient((log_probs.exp().detach() * kl_penalty(log_probs, reference, kind)).sum())

    def of_kl() -> torch.Tensor:
        log_probs = torch.log_softmax(logits, dim=0)
        return gradient((log_probs.exp() * (log_probs - reference)).sum())

    def of_reverse_kl() -> torch.Tensor:
        return gradient((reference.exp() * (reference - torch.log_softmax(logits, dim=0))).sum())

    torch.testing.assert_close(expected("low_var_kl+"), of_kl())
    torch.testing.assert_close(expected("low_var_kl"), of_reverse_kl())
    assert (of_kl() - of_reverse_kl()).abs().max() > 0.1


def test_the_fraction_of_tokens_at_the_clamp_by_hand():
    log_probs = torch.tensor([[-3.0, -3.0, -0.1, -3.0], [-3.0, -0.1, -3.0, -9.0]])
    reference = torch.tensor([[-0.3, -1.0, -11.9, -0.1], [-3.0, -9.0, -0.4, -0.1]])
    # differences                2.7   2.0  -11.8   2.9     0.0  -8.9   2.6   8.9
    mask = torch.tensor([[1, 1, 1, 0], [1, 1, 1, 0]])
    assert kl_clamped_fraction(log_probs, reference, mask) == pytest.approx(2 / 6)
    assert kl_clamped_fraction(log_probs, reference, torch.zeros_like(mask)) == 0.0
    assert kl_clamped_fraction(log_probs, log_probs, mask) == 0.0


@pytest.mark.parametrize(
    ("profile", "model", "kind"),
    [
        ("gpu", "qwen2.5-1.5b", "low_var_kl+"),
        ("cpu", "smollm2", "low_var_kl+"),
        ("cpu", "tiny", "low_var_kl"),  # its published figures were measured with it
    ],
)
def test_what_the_presets_use(profile, model, kind):
    config = composed(profile=profile, model=model)
    assert config.actor_rollout_ref.actor.kl_loss_type == kind
