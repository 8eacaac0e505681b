# SPDX-License-Identifier: Apache-2.0
"""HiPER's trainer on real parts: Ray, vLLM, FSDP2, generated ALFWorld games, and a model small enough for seconds.

The first part examines the run of tests/e2e/test_run_alfworld.py, which tests/conftest.py starts.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pytest
from PIL import Image
from trainer_runs import Run, assert_finite, assert_policies_agree, module_command, train
from transformers import AutoTokenizer

from agent_system.environments.alfworld.games import alfworld_panel
from agent_system.environments.tasks import training_order
from agent_system.plan_execute.protocol import decide, parse_reply, token_spans

pytestmark = pytest.mark.engine

KINDS = {
    "look_at_obj_in_light",
    "pick_and_place_simple",
    "pick_clean_then_place_in_recep",
    "pick_cool_then_place_in_recep",
    "pick_heat_then_place_in_recep",
    "pick_two_obj_and_place",
}
EPISODES = 4
MAX_STEPS = 4
"""Of the short runs. Those of the script's run are in its configuration."""

SHORT = {
    "profile": "cpu",
    "env.max_steps": MAX_STEPS,
    "env.val_tasks": 6,
    "data.train_batch_size": EPISODES,
    "data.max_prompt_length": 1200,
    "data.max_response_length": 16,
    "algorithm.updates_per_step": 2,
    "trainer.critic_warmup": 0,
    "actor_rollout_ref.actor.optim.lr_warmup_steps": 0,
    "trainer.total_training_steps": 2,
    "trainer.save_freq": -1,
    "trainer.test_freq": -1,
    "trainer.val_before_train": False,
}
PAIRS = {"env.rollout.n": 2, "data.train_batch_size": EPISODES // 2}


@pytest.fixture
def train_two_steps(tmp_path, hiper_cache, games_in_a_run, tiny_model) -> Callable[[dict], Run]:
    """Starts two steps of the CPU profile with everything made small: `train_two_steps(settings)`."""

    def start(settings: dict) -> Run:
        return train(
            module_command("recipe.hiper.main"),
            tmp_path / "run",
            SHORT | games_in_a_run | {"actor_rollout_ref.model.path": tiny_model} | settings,
            environment={"HIPER_CACHE": str(hiper_cache)},
        )

    return start


# ---------------------------------------------------------------------------------------------------------------------
# The run of the script with HAE, and its continuation.


def test_every_step_is_sound(script_run):
    run = script_run
    assert sorted(run.metrics) == [0, 1, 2, 3]
    for step in (1, 2, 3):
        metrics = run.metrics[step]
        assert_policies_agree(metrics)
        losses = [f"critic/vf_loss_{head}" for head in ("high", "low", "term")]
        gradients = ["actor/grad_norm", "critic/grad_norm", "entropy/switch", "entropy/action"]
        assert_finite(metrics, *losses, *gradients, "actor/pg_loss", "actor/kl_loss", "hierarchy/switch_probability")
        assert all(metrics[name] > 0 for name in gradients)
        assert metrics["rollout/episodes"] == run.config.data.train_batch_size
    # The heads start at zero and learn: the critic's values reach the next step's advantages.
    assert run.metrics[1]["critic/value_low/mean"] == 0
    assert run.metrics[2]["critic/value_low/mean"] != 0


@pytest.mark.nightly
def test_the_same_command_gives_the_same_run(script_run, start_script):
    run = script_run
    again = start_script("again", {"trainer.total_training_steps": 2, "trainer.save_freq": -1})

    def reproducible(metrics: dict) -> dict:
        parts_of_machine = ("timing", "perf/", "actor/perf/", "critic/perf/")
        return {name: value for name, value in metrics.items() if not name.startswith(parts_of_machine)}

    assert reproducible(again.metrics[1]) == reproducible(run.metrics[1])

    def replies(run: Run) -> list:
        return [[turn["reply"] for turn in episode["trajectory"]] for episode in run.episodes("train", 1)]

    assert replies(again) == replies(run)


def test_finished_episodes_cost_no_generation(script_run):
    """Defect 7 of the released code: finished episodes were generated for until the slowest one ended."""
    shares = [script_run.metrics[step]["rollout/generations_after_end_fraction"] for step in (1, 2, 3)]
    shares += [script_run.metrics[step]["val/generations_after_end_fraction"] for step in (0, 3)]
    assert shares == [0.0] * 5


def test_validation_reports_every_kind_of_task_on_the_same_panel(script_run):
    for step in (0, 3):
        rates = {name for name in script_run.metrics[step] if name.startswith("val/success_rate/")}
        assert rates == {f"val/success_rate/{kind}" for kind in KINDS}
        assert_finite(script_run.metrics[step], "val/success_rate", *rates)
    panels = [[episode["task_id"] for episode in script_run.episodes("val", step)] for step in (0, 3)]
    assert len(panels[0]) == 12 and sorted(panels[0]) == sorted(panels[1])


def test_what_a_run_leaves(script_run):
    for name in ("config.yaml", "tasks/train.json", "tasks/val.json"):
        assert (script_run.folder / name).stat().st_size > 0
    assert list((script_run.folder / "tensorboard").rglob("events.out.*"))
    for step in (2, 3):
        assert script_run.checkpoints[step] >= {"actor", "critic"}
    assert not (script_run.folder / "failures.jsonl").exists()
    with Image.open(script_run.folder / "curve.png") as curve:
        curve.verify()
    status = script_run.status
    assert (status["stage"], status["step"], status["total_steps"]) == ("finished", 3, 3)
    assert "[3/3]" in script_run.printed
    # What the libraries print goes to the log file. The bars before the first line are of games and model.
    training = script_run.printed.partition("\nrun: ")[2]
    assert 0 < len(training.splitlines()) < 60 and "WARNING" not in script_run.printed


def test_episodes_tell_what_happened(script_run):
    tokenizer = AutoTokenizer.from_pretrained(script_run.config.actor_rollout_ref.model.path)
    max_steps = script_run.config.env.max_steps
    boundaries, well_formed = [], 0
    for step in (1, 2, 3):
        episodes = script_run.episodes("train", step)
        assert len(episodes) == script_run.config.data.train_batch_size
        for episode in episodes:
            assert (episode["step"], episode["split"]) == (step, "train")
            assert episode["kind"] in KINDS and len(episode["trajectory"]) == episode["turns"]
            if episode["stop"] == "step_limit":
                assert episode["turns"] == max_steps
            else:
                assert episode["stop"] == "won" and episode["turns"] <= max_steps
            kept = ""
            for number, turn in enumerate(episode["trajectory"]):
                reply = parse_reply(turn["reply"])
                decision = decide(reply, number, kept)
                kept = decision.subgoal
                assert (turn["turn"], turn["action"]) == (number, reply.action)
                assert (turn["boundary"], turn["subgoal_in_force"]) == (decision.boundary, kept)
                assert turn["problems"] == [problem.value for problem in reply.problems]
                assert turn["observation"] in turn["prompt"]
                assert 0 <= turn["switch_probability"] <= 1
                boundaries.append(turn["boundary"])
                if reply.valid:
                    well_formed += 1
                    # The fewest tokens this text can be written with. What was sampled may be longer: tags spelled out,
                    # special tokens in between.
                    pieces = [tokenizer.decode([token]) for token in tokenizer(turn["reply"]).input_ids]
                    fewest = token_spans(reply, pieces)
                    switch, subgoal, action = turn["spans"]
                    assert switch[0] >= 0 and switch[1] <= subgoal[0] and subgoal[1] <= action[0]
                    assert subgoal[1] <= turn["value_low"] <= action[0]
                    for ours, least in zip(turn["spans"], (fewest.switch, fewest.subgoal, fewest.action), strict=True):
                        assert ours[1] - ours[0] >= least[1] - least[0] > 0
    assert well_formed > len(boundaries) / 2, "the warm start teaches well-formed replies"
    assert not all(boundaries), "there are KEEP turns"
    assert sum(boundaries) > 3 * script_run.config.data.train_batch_size, "there are SWITCH turns after the first ones"


def test_credit_in_the_episodes_is_hae(script_run):
    """Recomputed turn by turn from the values in the file, with the settings recorded in the run."""
    algorithm = script_run.config.algorithm
    gamma, lam, lam_seg = algorithm.gamma, algorithm.lam, algorithm.hae.lam_seg
    assert algorithm.hae.keep_penalty_mode == "normalized" and algorithm.hae.switch_advantage == "segment_return"
    assert 0.0 not in (algorithm.inadmissible_penalty, algorithm.hae.keep_penalty)
    episodes = script_run.episodes("train", 3)
    assert any(turn["boundary"] for episode in episodes for turn in episode["trajectory"][1:])
    assert not all(turn["boundary"] for episode in episodes for turn in episode["trajectory"])
    for episode in episodes:
        turns = episode["trajectory"]
        low = high = segment = 0.0
        after = None
        for turn in reversed(turns):
            kept = not turn["boundary"]
            drifted = kept and not turn["copied_exactly"] and turn["comparable"]
            reward = turn["reward"] - 0.1 * bool(turn["problems"])
            reward += algorithm.inadmissible_penalty * (not turn["admissible"])
            reward += algorithm.hae.keep_penalty / len(turns) * kept
            reward += algorithm.hae.keep_consistency_penalty * drifted
            assert turn["shaped_reward"] == pytest.approx(reward, abs=1e-5)
            values = turn["values"]
            if after is None:  # cut by the step limit, not bootstrapped
                low, high, segment = reward - values["low"], reward, reward
            elif after["boundary"]:
                start = after["values"]["high"]
                low = reward + gamma * start - values["low"]
                high = reward + gamma * (start + lam_seg * after["advantages"]["subgoal"])
                segment = reward + gamma * start
            else:
                low = reward + gamma * after["values"]["low"] - values["low"] + gamma * lam * low
                high, segment = reward + gamma * high, reward + gamma * segment
            assert turn["advantages"]["action"] == pytest.approx(low, abs=1e-5)
            assert turn["advantages"]["switch"] == pytest.approx(segment - values["term"], abs=1e-5)
            subgoal = high - values["high"] if turn["boundary"] else 0.0
            assert turn["advantages"]["subgoal"] == pytest.approx(subgoal, abs=1e-5)
            after = turn


def test_a_resumed_run_continues_the_earlier_one(script_run, interrupted_run):
    assert "resuming from the checkpoint of step 3" in interrupted_run.printed
    assert sorted(interrupted_run.metrics) == [0, 1, 2, 3, 4]
    for step in (1, 2):
        assert interrupted_run.metrics[step] == script_run.metrics[step]
    assert_policies_agree(interrupted_run.metrics[4])
    # A critic that was not loaded would return 0 again.
    assert interrupted_run.metrics[4]["critic/value_low/mean"] != 0
    assert 4 in interrupted_run.checkpoints


def test_a_resumed_run_plays_the_tasks_an_uninterrupted_one_would_have_played(interrupted_run):
    batch = interrupted_run.config.data.train_batch_size
    panel = alfworld_panel(Path(interrupted_run.config.env.alfworld.data_dir), "train")
    order = [task.task_id for task in islice(training_order(panel, seed=0), 4 * batch)]
    for step in (1, 2, 3, 4):
        played = [episode["task_id"] for episode in interrupted_run.episodes("train", step)]
        assert sorted(played) == sorted(order[(step - 1) * batch : step * batch])


# ---------------------------------------------------------------------------------------------------------------------
# Other settings, two steps each.


FLAT = {"env.env_name": "alfworld/AlfredTWEnvNothink"}
"""The flat prompt, whose format the tiny model's replies break: there are penalties to be learned from."""


@pytest.mark.nightly
def test_flat_gae_is_verls_own(train_two_steps):
    run = train_two_steps(FLAT | {"algorithm.adv_estimator": "gae"})
    for step in (1, 2):
        metrics = run.metrics[step]
        assert_policies_agree(metrics)
        assert_finite(metrics, "critic/vf_loss", "critic/grad_norm", "actor/pg_loss", "actor/grad_norm")
        assert metrics["actor/grad_norm"] > 0
        # The penalty is in the rewards verl trains on.
        malformed = 1 - metrics["rollout/well_formed_fraction"]
        assert malformed > 0.5
        penalties = 0.1 * malformed + 0.5 * (1 - metrics["rollout/admissible_fraction"])
        assert metrics["critic/rewards/mean"] == pytest.approx(metrics["rollout/return"] - penalties, abs=1e-5)
    assert all("advantages" not in turn for turn in run.episodes("train", 2)[0]["trajectory"])
    assert not (run.folder / "checkpoints").exists()


def test_turn_gae_has_one_head_and_one_advantage_a_turn(train_two_steps):
    run = train_two_steps(FLAT | {"algorithm.adv_estimator": "turn_gae", "algorithm.lam": 0.95})
    for step in (1, 2):
        metrics = run.metrics[step]
        assert_policies_agree(metrics)
        assert_finite(metrics, "critic/vf_loss_high", "critic/grad_norm", "actor/grad_norm", "advantage/turn/std")
        assert metrics["actor/grad_norm"] > 0 and "critic/vf_loss_low" not in metrics
        # Every token of every reply is trained on.
        assert metrics["actor/trained_tokens_per_turn"] == pytest.approx(metrics["response_length/mean"])
        for episode in run.episodes("train", step):
            turns, advantage = episode["trajectory"], 0.0
            for turn, after in reversed(list(zip(turns, [*turns[1:], None], strict=True))):
                next_value = after["values"]["high"] if after else 0.0
                delta = turn["shaped_reward"] + 0.95 * next_value - turn["values"]["high"]
                advantage = delta + 0.95 * 0.95 * advantage
                assert turn["advantages"]["action"] == pytest.approx(advantage, abs=1e-5)
                assert turn["advantages"]["switch"] == turn["advantages"]["action"]
    assert run.metrics[2]["critic/value_high/mean"] != 0, "the critic has learned something"


def test_a_group_filter_with_nothing_left_is_an_error(train_two_steps, tmp_path):
    """No model of this size wins a game: every group is filtered, forever without a limit.

    The same run logs to Weights & Biases: without WANDB_API_KEY nothing is sent, and nothing is lost.
    """
    filtered = PAIRS | {
        "algorithm.adv_estimator": "grpo",
        "algorithm.filter_groups.enable": True,
        "algorithm.filter_groups.max_num_gen_batches": 1,
        "trainer.logger": "[tensorboard,wandb]",
    }
    with pytest.raises(AssertionError, match=r"filter_groups\.max_num_gen_batches=2 to look longer, env\.rollout\.n=4"):
        train_two_steps(filtered)
    assert list((tmp_path / "run").rglob("offline-run-*/*.wandb"))


def test_two_heads_the_papers_switch_advantage_short_keep_and_bootstrap_on_two_processes(
    train_two_steps, tiny_model_with_short_keep
):
    packed = {
        "use_remove_padding": True,  # rows without padding, as on GPUs
        "external_lib": "verl_plugins.packed",
        "override_config.attn_implementation": "torch_varlen",
    }
    run = train_two_steps(
        PAIRS
        | {
            "actor_rollout_ref.model.path": tiny_model_with_short_keep,
            "env.short_keep": True,
            "critic.use_two_heads_critic": True,
            "critic.use_three_heads_critic": False,
            "algorithm.hae.switch_advantage": "termination",
            "algorithm.hae.bootstrap_truncated": True,
            "trainer.n_gpus_per_node": 2,
        }
        | {
            f"{model}.{key}": value
            for model in ("actor_rollout_ref.model", "critic.model")
            for key, value in packed.items()
        }
    )
    for step in (1, 2):
        metrics = run.metrics[step]
        assert_policies_agree(metrics)
        losses = [f"critic/vf_loss_{head}" for head in ("high", "low", "term")]
        assert_finite(metrics, *losses, "critic/grad_norm", "actor/pg_loss", "actor/grad_norm")
        assert metrics["rollout/turns"] == EPISODES * MAX_STEPS  # the states after the cut are no turns
        episodes = run.episodes("train", step)
        assert len(episodes) == EPISODES and len({episode["task_id"] for episode in episodes}) == EPISODES // 2
        for episode in episodes:
            assert episode["turns"] == MAX_STEPS
            for number, turn in enumerate(episode["trajectory"]):
                values, probability = turn["values"], turn["switch_probability"]
                expected = (turn["boundary"] - probability) * (values["high"] - values["term"]) if number else 0.0
                assert turn["advantages"]["switch"] == pytest.approx(expected, abs=1e-5)
    turns = [turn for step in (1, 2) for episode in run.episodes("train", step) for turn in episode["trajectory"]]
    short = [turn for turn in turns if not turn["boundary"] and "<subgoal>" not in turn["reply"]]
    sound = [turn for turn in short if not turn["problems"]]
    assert sound, "the model was taught to leave a kept sub-goal out"
    for turn in sound:
        assert turn["copied_exactly"] and turn["subgoal_in_force"] and turn["spans"][1] == [0, 0]
    # Where there is nothing to keep, leaving it out is what it always was.
    assert all(turn["problems"] == ["missing_subgoal"] for turn in short if not turn["subgoal_in_force"])


@pytest.mark.nightly
def test_importance_weights_reach_the_update(train_two_steps):
    """In float32 the two policies agree, so that all weights are 1 and nothing else may change."""
    settings = {
        "algorithm.rollout_correction.rollout_is": "token",
        "algorithm.rollout_correction.rollout_rs": "token_k1",
    }
    run = train_two_steps(settings | {"algorithm.rollout_correction.rollout_rs_threshold": 2.0})
    for step in (1, 2):
        metrics = run.metrics[step]
        assert_policies_agree(metrics)
        assert metrics["rollout_corr/rollout_is_mean"] == pytest.approx(1.0, abs=1e-4)
        assert metrics["rollout_corr/rollout_rs_masked_fraction"] == 0.0
        assert metrics["actor/kl_clamped_fraction"] == 0.0
        assert_finite(metrics, "actor/pg_loss", "actor/grad_norm")


@pytest.mark.nightly
def test_lora_trains_the_adapters(train_two_steps):
    run = train_two_steps(
        {
            "actor_rollout_ref.model.lora_rank": 4,
            "actor_rollout_ref.model.lora_alpha": 8,
            "critic.model.lora_rank": 4,
            "critic.model.lora_alpha": 8,
            "actor_rollout_ref.actor.optim.lr": 1e-2,
            "trainer.logger": "[tensorboard,wandb]",
        }
    )
    for step in (1, 2):
        metrics = run.metrics[step]
        # vLLM's policy has the adapters too: after the first update they are no longer zero.
        assert_policies_agree(metrics)
        losses = [f"critic/vf_loss_{head}" for head in ("high", "low", "term")]
        assert_finite(metrics, *losses, "critic/grad_norm", "actor/pg_loss", "actor/grad_norm")
        assert metrics["actor/grad_norm"] > 0
    assert run.metrics[2]["actor/kl_loss"] > 1e-6, "the policy has left the reference, which is the base model"
    assert run.metrics[1]["critic/value_low/mean"] == 0 != run.metrics[2]["critic/value_low/mean"]
    assert list(run.folder.rglob("offline-run-*/*.wandb")), "without WANDB_API_KEY nothing is sent, and nothing is lost"
