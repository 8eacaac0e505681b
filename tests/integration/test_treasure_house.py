# SPDX-License-Identifier: Apache-2.0
"""Does it learn? A game whose optimum is known, a model that plays nearly at random, the real trainer.

`bash tests/run.sh nightly` shows that HAE reaches the optimum, and does not without a learning rate. CI takes the same
path for three steps.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path

import pytest
from gymnasium.utils.env_checker import check_env
from trainer_runs import Run, assert_finite, assert_policies_agree, module_command, train
from treasure_house import ROOMS, THINGS, TreasureHouse, tasks
from treasure_house_player import make_player

pytestmark = pytest.mark.engine

MAX_STEPS = 5
STEPS = 24
"""Enough for a slow run: which tokens are sampled depends on the order in which replies arrive."""
HAE = {
    "algorithm.hae.regularize_copies": True,
    "algorithm.hae.keep_penalty": 0,  # the optimum is the environment's
    "algorithm.hae.keep_consistency_penalty": 0,
}


def games(thing: str) -> list[TreasureHouse]:
    """The games whose task is `thing`, at their start. A panel holds each of them equally often."""
    started = []
    for room in ROOMS:
        started.append(TreasureHouse(MAX_STEPS))
        started[-1].reset(options={"thing": thing, "room": room})
    return started


def fewest_turns(game: TreasureHouse) -> int | None:
    """Turns of the shortest way to win, by breadth-first search in the game; None if it cannot be won in time."""
    states = [game]
    for turn in range(1, MAX_STEPS + 1):
        running = []
        for state in states:
            for action in state.admissible:
                after = deepcopy(state)
                _, _, terminated, truncated, info = after.step(action)
                if info["won"]:
                    return turn
                if not (terminated or truncated):
                    running.append(after)
        states = running
    return None


def most_wins(alike: Sequence[TreasureHouse]) -> int:
    """How many of these games the best plan wins that tells them apart by nothing but what they show from now on."""
    most = 0
    for action in alike[0].admissible:
        wins, running = 0, defaultdict(list)
        for game in alike:
            after = deepcopy(game)
            observation, _, terminated, truncated, info = after.step(action)
            wins += info["won"]
            if not (terminated or truncated):
                running[observation].append(after)
        most = max(most, wins + sum(most_wins(group) for group in running.values()))
    return most


def train_in_the_house(folder: Path, player: Path, steps: int, settings: dict[str, object]) -> Run:
    """A run of so many steps, all of them logged. What decides about learning is named here, not in a profile."""
    defaults = {
        "profile": "cpu",
        "actor_rollout_ref.model.path": player,
        "env.env_name": "treasure_house:TREASURE_HOUSE",
        "env.name": "treasure-house",
        "env.max_steps": MAX_STEPS,
        "env.history_length": 0,  # what the note said is nowhere but in the sub-goal
        "env.val_tasks": len(tasks("val")),
        "env.seed": 0,
        "data.train_batch_size": 96,
        "data.max_prompt_length": 64,
        "data.max_response_length": 16,
        "algorithm.gamma": 0.95,
        "algorithm.lam": 0.5,
        "algorithm.updates_per_step": 4,
        "algorithm.inadmissible_penalty": -0.5,
        "actor_rollout_ref.rollout.temperature": 1.0,
        "actor_rollout_ref.actor.invalid_action_penalty_coef": 0.5,
        "actor_rollout_ref.actor.ppo_epochs": 2,
        "actor_rollout_ref.actor.kl_loss_coef": 0.05,
        "actor_rollout_ref.actor.optim.lr": 5e-4,
        # Near the optimum the few episodes that are lost have huge advantages; full steps would be thrown by them.
        "actor_rollout_ref.actor.optim.lr_scheduler_type": "cosine",
        "actor_rollout_ref.actor.optim.lr_warmup_steps": 0,
        "critic.ppo_epochs": 2,
        "critic.optim.lr": 3e-3,
        "trainer.critic_warmup": 2,
        "trainer.total_training_steps": steps,
        "trainer.test_freq": steps,
        "trainer.save_freq": -1,
    }
    here = Path(__file__).parent
    run = train(
        module_command("recipe.hiper.main"),
        folder,
        defaults | settings,
        environment={"PYTHONPATH": os.pathsep.join(filter(None, (str(here), os.environ.get("PYTHONPATH"))))},
        timeout_s=840,
    )
    assert sorted(run.metrics) == list(range(steps + 1))
    return run


@pytest.fixture(scope="module")
def player(tmp_path_factory) -> Path:
    return make_player(tmp_path_factory.mktemp("player"))


@pytest.fixture(scope="module")
def optimum() -> tuple[float, float]:
    """Success rate and mean turns of the best play."""
    turns = [fewest_turns(game) for thing in THINGS for game in games(thing)]
    won = [number for number in turns if number is not None]
    return len(won) / len(turns), sum(won) / len(won)


def test_the_game_keeps_gymnasiums_contract():
    check_env(TreasureHouse(), skip_render_check=True)


def test_nobody_wins_who_forgets_the_note(optimum):
    """And in the prompts of this test only the sub-goal remembers it: who reaches the optimum plans."""
    best_success, _ = optimum
    for thing in THINGS:
        indoors = games(thing)
        for game in indoors:
            game.step("open door")
        assert most_wins(indoors) / len(indoors) <= best_success / 2


def assert_every_step_is_sound(run: Run) -> None:
    for row in list(run.metrics.values())[1:]:
        assert_policies_agree(row)
        losses = [f"critic/vf_loss_{head}" for head in ("high", "low", "term")]
        assert_finite(row, *losses, "critic/grad_norm", "hierarchy/switch_probability")
        if "actor/grad_norm" in row:
            assert_finite(row, "actor/pg_loss", "actor/kl_loss", "actor/grad_norm")


def test_hae_trains_on_the_users_own_environment(player, optimum, tmp_path):
    """The short version of the next test: the policy moves as soon as the critic has had its first steps."""
    run = train_in_the_house(tmp_path / "run", player, 3, HAE)
    assert_every_step_is_sound(run)
    assert run.metrics[0]["val/success_rate"] <= optimum[0] / 2
    assert 0.0 <= run.metrics[3]["val/success_rate"] <= 1.0
    assert "actor/grad_norm" not in run.metrics[1]  # trainer.critic_warmup
    for step in (2, 3):
        assert run.metrics[step]["actor/grad_norm"] > 0
    assert run.metrics[3]["actor/kl_loss"] > 1e-6


@pytest.mark.nightly
def test_hae_reaches_the_optimum(player, optimum, tmp_path):
    run = train_in_the_house(tmp_path / "run", player, STEPS, HAE)
    assert_every_step_is_sound(run)
    best_success, best_turns = optimum
    first, last = run.metrics[0], run.metrics[STEPS]
    assert first["val/success_rate"] <= best_success / 2
    assert last["val/success_rate"] >= 0.9 * best_success
    assert last["val/episode_length"] == pytest.approx(best_turns, abs=0.25)


@pytest.mark.nightly
def test_gigpo_plays_groups_that_teach_something_and_starts_no_critic(player, tmp_path):
    run = train_in_the_house(
        tmp_path / "run",
        player,
        2,
        {
            "algorithm.adv_estimator": "gigpo",
            "algorithm.filter_groups.enable": True,
            "env.rollout.n": 4,
            "data.train_batch_size": 6,
            "trainer.critic_warmup": 2,
        },
    )
    for step in (1, 2):
        row = run.metrics[step]
        assert_policies_agree(row)
        assert_finite(row, "actor/pg_loss", "actor/grad_norm", "advantage/turn/std")  # from the first step on
        assert not [name for name in row if name.startswith("critic/v")]
        groups = defaultdict(list)
        for episode in run.episodes("train", step):
            groups[episode["session"].rsplit("_", 1)[0]].append(episode)
        assert len(groups) == 6
        for group in groups.values():
            assert len(group) == 4 and len({episode["task_id"] for episode in group}) == 1
            assert len({episode["return"] for episode in group}) > 1, "a group without signal was not replaced"
            # All begin with the same observation, and not all of them won.
            assert len({episode["trajectory"][0]["observation"] for episode in group}) == 1
            firsts = [episode["trajectory"][0]["advantages"]["action"] for episode in group]
            assert min(firsts) < 0 < max(firsts)


@pytest.mark.nightly
def test_without_a_learning_rate_nothing_is_learned(player, tmp_path):
    """So it is the updates that do it, and nothing else moves the weights."""
    still = {"actor_rollout_ref.actor.optim.lr": 0, "trainer.critic_warmup": 0}
    run = train_in_the_house(tmp_path / "run", player, 2, HAE | still)
    for step in (1, 2):
        assert_policies_agree(run.metrics[step])
        assert run.metrics[step]["actor/grad_norm"] > 0
        assert abs(run.metrics[step]["actor/kl_loss"]) < 1e-9
    assert abs(run.metrics[2]["val/success_rate"] - run.metrics[0]["val/success_rate"]) < 0.2
