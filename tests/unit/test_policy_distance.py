# SPDX-License-Identifier: Apache-2.0
"""The KL term: where its estimators have a gradient, what it is in expectation, the share of tokens at the clamp."""

from __future__ import annotations

import pytest
import torch
from made_config import check, composed
from omegaconf import DictConfig
from tensordict import TensorDict
from verl.trainer.ppo.core_algos import kl_penalty
from verl.utils import tensordict_utils as tu
from verl.utils.config import omega_conf_to_dataclass
from verl.workers.utils.losses import ppo_loss
from verl.workers.utils.padding import response_to_nested

from agent_system.errors import ConfigError
from recipe.hiper.configuration.settings import verl_config
from recipe.hiper.trainer.policy_distance import (
    KL_CLAMP,
    EveryTokenRejected,
    columns_to_read,
    kl_clamped_fraction,
    policy_distance,
    require_valid_correction,
)

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


# ---------------------------------------------------------------------------------------------------------------------
# The correction for the difference between vLLM's policy and the trainer's.

CORRECTION = "algorithm.rollout_correction"
REPLIES = (3, 2)
"""Tokens of the two replies of the batch below."""


def corrected_config(*overrides: str) -> DictConfig:
    return verl_config(composed(*(f"{CORRECTION}.{override}" for override in overrides)))


def nested(*rows: list[float]) -> torch.Tensor:
    return torch.nested.as_nested_tensor([torch.tensor(row) for row in rows], layout=torch.jagged)


def batch(**more) -> TensorDict:
    """p_trainer / p_vllm is 2, 1/2, 4 in the first reply and 1, 1/4 in the second; the last row is padding."""
    trainer = nested([-1.0, -2.0, -1.5], [-0.5, -3.0], [-1.0])
    log_2 = torch.log(torch.tensor(2.0)).item()
    vllm = nested([-1.0 - log_2, -2.0 + log_2, -1.5 - 2 * log_2], [-0.5, -3.0 + 2 * log_2], [-9.0])
    columns = {"old_log_probs": trainer, "rollout_log_probs": vllm, "ref_log_prob": trainer} | more
    return TensorDict(columns, batch_size=3)


SAMPLED = torch.tensor([[1, 1, 1], [1, 1, 0], [0, 0, 0]])
ON_LOSS = torch.tensor([[0, 1, 1], [1, 1, 0], [0, 0, 0]])
"""The first token of the first reply has no advantage."""


@pytest.mark.parametrize(
    ("overrides", "weights"),
    [
        (["rollout_is=token", "rollout_is_threshold=3.0"], [[2, 0.5, 3], [1, 0.25, 0], [0, 0, 0]]),
        # of the whole reply, with the token that is not on the loss: 2 * 1/2 * 4 = 4, and 1/4
        (["rollout_is=sequence", "rollout_is_threshold=8.0"], [[4, 4, 4], [0.25, 0.25, 0], [0, 0, 0]]),
    ],
)
def test_the_weights_by_hand(overrides, weights):
    config = corrected_config(*overrides)
    assert set(columns_to_read(config)) == {"old_log_probs", "ref_log_prob", "rollout_log_probs"}
    distance = policy_distance(batch(), ON_LOSS, SAMPLED, config)
    torch.testing.assert_close(distance.columns["rollout_is_weights"], torch.tensor(weights, dtype=torch.float32))
    assert torch.equal(distance.columns["credit_mask"], ON_LOSS)
    assert distance.metrics["rollout_corr/rollout_is_max"] > 1 and "rollout_corr/kl" in distance.metrics


def test_without_a_correction_there_are_no_weights_and_nothing_is_read():
    for config in (verl_config(composed()), corrected_config("bypass_mode=true")):
        assert columns_to_read(config) == ["old_log_probs", "ref_log_prob"]
        distance = policy_distance(batch(), ON_LOSS, SAMPLED, config)
        assert set(distance.columns) == {"credit_mask"} and set(distance.metrics) == {"actor/kl_clamped_fraction"}


def test_rejected_tokens_leave_the_loss():
    """Ratios outside 1/3 to 3: the third token of the first reply (4), and the second of the second (1/4)."""
    config = corrected_config("rollout_rs=token_k1", "rollout_rs_threshold=3.0")
    distance = policy_distance(batch(), ON_LOSS, SAMPLED, config)
    assert distance.columns["credit_mask"].tolist() == [[0, 1, 0], [1, 0, 0], [0, 0, 0]]
    assert "rollout_is_weights" not in distance.columns
    only = torch.tensor([[0, 0, 1], [0, 1, 0], [0, 0, 0]])
    with pytest.raises(EveryTokenRejected, match=r"rollout_rs=token_k1 rejects every token .*Try: a wider"):
        policy_distance(batch(), only, SAMPLED, config)


def test_the_weights_reach_the_policy_loss():
    """One update from the old policy: the ratio is 1, and the loss is the weighted mean of -A over the loss's tokens.

    Weights 1/2 and 3 (truncated) with A = 2, and 1 and 1/4 with A = -1: -(1/2 * 2 + 3 * 2 - 1 - 1/4) / 4 = -5.75 / 4.
    """
    config = corrected_config("rollout_is=token", "rollout_is_threshold=3.0")
    rows = batch()
    distance = policy_distance(rows, ON_LOSS, SAMPLED, config)
    lengths = nested([1.0, 1.0, 1.0], [1.0, 1.0], [1.0])
    # verl's engines emit a result for each token of a row at the place before it.
    log_probs = [torch.cat([row, torch.zeros(1)]) for row in rows["old_log_probs"].unbind()]
    data = TensorDict(
        {
            "prompts": nested([5.0], [5.0], [5.0]),
            "responses": lengths,
            "old_log_probs": rows["old_log_probs"],
            "ref_log_prob": rows["ref_log_prob"],
            "advantages": response_to_nested(torch.tensor([[2.0] * 3, [-1.0] * 3, [7.0] * 3]), lengths),
            "response_mask": response_to_nested(distance.columns["credit_mask"], lengths),
            "rollout_is_weights": response_to_nested(distance.columns["rollout_is_weights"], lengths),
        },
        batch_size=3,
    )
    tu.assign_non_tensor(data, dp_size=1, batch_num_tokens=int(ON_LOSS.sum()), global_batch_size=3)
    actor = omega_conf_to_dataclass(config.actor_rollout_ref.actor)
    output = {"log_probs": torch.nested.as_nested_tensor(log_probs, layout=torch.jagged)}
    _, metrics = ppo_loss(actor, output, data)
    assert float(metrics["actor/pg_loss"].aggregate()) == pytest.approx(-5.75 / 4)
    del data["rollout_is_weights"]
    _, plain = ppo_loss(actor, output, data)
    assert float(plain["actor/pg_loss"].aggregate()) == pytest.approx(-(2 + 2 - 1 - 1) / 4)


def test_our_estimators_accept_the_correction():
    for estimator in ("hae", "turn_gae", "grpo"):
        groups = ("env.rollout.n=2",) if estimator == "grpo" else ()
        check(composed(f"algorithm.adv_estimator={estimator}", f"{CORRECTION}.rollout_is=token", *groups))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["rollout_is=turn"], "rollout_is=turn: .*rollout_is=token"),
        (["rollout_rs=token_k1"], r"rollout_rs=token_k1 needs a threshold. Try: .*rollout_rs_threshold=2.0"),
        (["rollout_is=token", "bypass_mode=true"], "bypass_mode=true takes .*Try: .*rollout_is=null"),
        (["bypass_mode=true", "loss_type=reinforce"], "loss_type=reinforce: .*Try: .*loss_type=ppo_clip"),
    ],
)
def test_settings_that_would_do_nothing_or_fail_late_are_refused(overrides, message):
    with pytest.raises(ConfigError, match=message):
        check(composed(*(f"{CORRECTION}.{override}" for override in overrides)))


def test_the_correction_needs_vllms_probabilities():
    with pytest.raises(ConfigError, match=r"needs the probabilities of vLLM.*calculate_log_probs=true"):
        check(composed(f"{CORRECTION}.rollout_is=token", "actor_rollout_ref.rollout.calculate_log_probs=false"))


def test_verl_reads_the_thresholds_before_the_run_starts():
    require_valid_correction(corrected_config("rollout_is=token", "rollout_is_threshold='0.5_2.0'"))
    with pytest.raises(ConfigError, match=r"rollout_is_threshold upper bound must be positive.*Try: "):
        require_valid_correction(corrected_config("rollout_is=token", "rollout_is_threshold=-1"))
    with pytest.raises(ConfigError, match=r"Invalid rollout_rs option: turn_k1.*Try: "):
        require_valid_correction(corrected_config("rollout_rs=turn_k1", "rollout_rs_threshold=2"))
