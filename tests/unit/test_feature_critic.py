# SPDX-License-Identifier: Apache-2.0
"""Value heads on the policy's hidden states: what they read, what they learn, and that a resumed run continues."""

import pytest
import torch
from made_config import check, composed

from agent_system.errors import ConfigError
from recipe.hiper.configuration.settings import FeatureCriticConfig, HiPERSettings, verl_config
from recipe.hiper.estimators.values import ValueSlot, explained_variance
from recipe.hiper.trainer.feature_critic import FeatureCritic

ROWS, FEATURES = 700, 96
ELAPSED = torch.full((ROWS,), 0.5)
SLOTS = list(ValueSlot)


def critic(heads=3, epochs=30, **changes):
    values = dict(num_heads=heads, coefficients=(1.0, 1.0, 1.0), lr=3e-3, weight_decay=0.0, clip_grad=1.0)
    return FeatureCritic(
        FeatureCriticConfig(**values | dict(epochs=epochs, mini_batch=64, replay_steps=1, seed=0) | changes)
    )


@pytest.fixture(name="turns")
def made_turns():
    """Features, and targets that are linear in them: high and term in the first place, low in the second."""
    torch.manual_seed(0)
    features = torch.randn(ROWS, 2, FEATURES)
    weights = torch.randn(3, FEATURES)
    first, second = features.unbind(dim=1)
    targets = torch.stack([first @ weights[0], second @ weights[1], first @ weights[2]], dim=1)
    return features, targets, torch.ones(ROWS, 3)


def test_before_anything_is_learned_every_value_is_zero(turns):
    assert torch.equal(critic().values(turns[0], ELAPSED), torch.zeros(ROWS, 3))


def test_the_values_of_unseen_turns_are_learned(turns):
    features, targets, mask = turns
    learner = critic(epochs=60)
    learner.fit(features[:600], ELAPSED[:600], targets[:600], mask[:600])
    values = learner.values(features[600:], ELAPSED[600:])
    for slot in SLOTS:
        assert explained_variance(values[:, slot], targets[600:, slot], mask[600:, slot]) > 0.8


def test_each_value_is_read_at_its_place(turns):
    features, targets, mask = turns
    learner = critic()
    learner.fit(features, ELAPSED[: len(features)], targets, mask)
    before, changed = learner.values(features, ELAPSED), features.clone()
    changed[:, 1] += 1.0  # after the sub-goal was written
    after = learner.values(changed, ELAPSED)
    assert torch.equal(after[:, ValueSlot.HIGH], before[:, ValueSlot.HIGH])
    assert torch.equal(after[:, ValueSlot.TERM], before[:, ValueSlot.TERM])
    assert not torch.equal(after[:, ValueSlot.LOW], before[:, ValueSlot.LOW])


def test_two_heads_read_the_term_value_with_the_low_head_and_one_head_reads_all(turns):
    features, targets, mask = turns
    two, one = critic(heads=2), critic(heads=1)
    for learner in (two, one):
        learner.fit(features, ELAPSED[: len(features)], targets, mask)
    same_place = features.clone()
    same_place[:, 1] = same_place[:, 0]
    values = two.values(same_place, ELAPSED)
    assert torch.equal(values[:, ValueSlot.LOW], values[:, ValueSlot.TERM])
    assert not torch.equal(values[:, ValueSlot.HIGH], values[:, ValueSlot.TERM])
    assert (one.values(same_place, ELAPSED).diff(dim=1) == 0).all()


def test_losses_are_means_over_the_turns_that_have_the_target():
    """By hand: values are 0, so the losses are half the mean squares of the targets: (9 + 1) / 2 / 2, 4 / 2, none."""
    features = torch.randn(3, 2, FEATURES)
    targets = torch.tensor([[3.0, 2.0, 7.0], [1.0, 5.0, 7.0], [8.0, 5.0, 7.0]])
    mask = torch.tensor([[1.0, 1, 0], [1, 0, 0], [0, 0, 0]])
    metrics = critic().fit(features, ELAPSED[: len(features)], targets, mask)
    names = ("critic/vf_loss_high", "critic/vf_loss_low", "critic/vf_loss_term")
    assert [metrics[name] for name in names] == [2.5, 2.0, 0.0]


def test_targets_that_do_not_exist_and_rows_that_fill_up_the_batch_change_nothing(turns):
    features, targets, mask = turns
    mask[::3, 0] = 0
    learner, other = critic(), critic()
    learner.fit(features, ELAPSED[: len(features)], targets, mask)
    filled = [torch.cat([x, torch.full_like(x[:7], 99.0)]) for x in (features, targets)]
    filled[1][:ROWS][mask == 0] = -99.0
    other.fit(filled[0], torch.full((ROWS + 7,), 0.5), filled[1], torch.cat([mask, torch.zeros(7, 3)]))
    assert torch.equal(learner.values(features, ELAPSED), other.values(features, ELAPSED))


def test_values_depend_on_how_much_of_the_step_limit_is_left(turns):
    features, _, mask = turns
    elapsed = torch.linspace(0, 1, ROWS)
    targets = (10 * (1 - elapsed))[:, None].expand(-1, 3)
    learner = critic(epochs=60)
    learner.fit(features, elapsed, targets, mask)
    torch.testing.assert_close(learner.values(features, elapsed), targets, atol=0.5, rtol=0)


def test_turns_of_earlier_steps_are_learned_until_they_are_too_old(turns):
    """Three steps of 50 turns, fitted on the last two: a turn of the first changes nothing at the third."""
    features, targets, mask = turns
    learners = critic(replay_steps=2), critic(replay_steps=2)
    for learner, first in zip(learners, (0, 200), strict=True):
        for start in (first, 50, 100):
            rows = slice(start, start + 50)
            learner.fit(features[rows], ELAPSED[rows], targets[rows], mask[rows])
        (kept,) = learner.state_dict()["earlier"]  # the next fit reads the third step and its own
        assert torch.equal(kept[1], targets[100:150])
    alone = critic(replay_steps=1)
    assert alone.state_dict()["earlier"] == []
    for start in (0, 50, 100):
        rows = slice(start, start + 50)
        alone.fit(features[rows], ELAPSED[rows], targets[rows], mask[rows])
    seen = features[50:100], ELAPSED[50:100]
    errors = [(one.values(*seen) - targets[50:100]).abs().mean() for one in (learners[0], alone)]
    assert errors[0] < errors[1]


@pytest.mark.parametrize("replay_steps", [1, 3])
def test_a_resumed_critic_continues_to_the_last_bit(replay_steps, turns, tmp_path):
    features, targets, mask = turns
    learner = critic(epochs=2, replay_steps=replay_steps)
    learner.fit(features, ELAPSED[: len(features)], targets, mask)
    torch.save(learner.state_dict(), tmp_path / "critic.pt")
    resumed = critic(epochs=2, replay_steps=replay_steps)
    resumed.load_state_dict(torch.load(tmp_path / "critic.pt", weights_only=True))
    for other in (learner, resumed):
        other.fit(features, ELAPSED[: len(features)], targets, mask)
    assert torch.equal(resumed.values(features, ELAPSED), learner.values(features, ELAPSED))


def test_a_critic_that_saw_no_batch_can_be_saved():
    resumed = critic()
    resumed.load_state_dict(critic().state_dict())
    assert torch.equal(resumed.values(torch.randn(2, 2, FEATURES), ELAPSED[:2]), torch.zeros(2, 3))


def test_the_section_critic_says_what_is_read_and_no_second_model_is_loaded():
    config = composed("critic.backbone=policy", "critic.ppo_epochs=5", "critic.optim.lr=0.002")
    settings = HiPERSettings.from_config(config).feature_critic
    assert settings is not None and (settings.epochs, settings.lr, settings.num_heads) == (5, 0.002, 3)
    assert verl_config(config).critic.enable is False
    assert HiPERSettings.from_config(composed()).feature_critic is None
    without = composed("critic.backbone=policy", "algorithm.adv_estimator=grpo", "env.rollout.n=4")
    assert HiPERSettings.from_config(without).feature_critic is None


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("algorithm.adv_estimator=gae", "critic.backbone=policy reads values of turns, and gae needs one of every tok"),
        ("algorithm.rollout_correction.bypass_mode=true", "bypass_mode=true leaves out. Try: critic.backbone=own"),
    ],
)
def test_what_needs_a_critic_of_its_own_is_refused(override, message):
    with pytest.raises(ConfigError, match=message):
        check(composed("critic.backbone=policy", override))
