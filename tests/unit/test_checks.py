# SPDX-License-Identifier: Apache-2.0
"""Bad input: every problem is named together with the override that mends it, before anything starts."""

from __future__ import annotations

import re

import pytest
from made_config import check, composed, reference
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from agent_system.errors import ConfigError
from recipe.hiper.configuration.keys import suggestion
from recipe.hiper.configuration.model import check_model, checkpoint_bytes
from recipe.hiper.configuration.overrides import check_overrides
from recipe.hiper.tasks.preparation import game_spec, prepare_games, prepare_model, prepare_panels

# What was typed, what the message says, and the overrides in it that mend the matter (they replace what was typed).
CASES = {
    "seeded requests and prompts in parts": (
        ["actor_rollout_ref.rollout.enable_chunked_prefill=true"],
        "vLLM fails at the first prompt that it cuts",
        ["actor_rollout_ref.rollout.enable_chunked_prefill=false"],
    ),
    "a prompt that is never scheduled": (
        ["actor_rollout_ref.rollout.max_num_batched_tokens=200"],
        "less than a prompt and its reply may need (304 tokens)",
        ["actor_rollout_ref.rollout.max_num_batched_tokens=304"],
    ),
    "unknown estimator": (["algorithm.adv_estimator=a2c"], "not one of hae", ["algorithm.adv_estimator=hae"]),
    "critic off": (["critic.enable=False"], "estimates advantages from values", ["critic.enable=null"]),
    "no heads": (
        ["critic.use_three_heads_critic=False"],
        "either three or two value heads",
        ["critic.use_three_heads_critic=True", "critic.use_two_heads_critic=False"],
    ),
    "too many heads": (
        ["critic.use_two_heads_critic=True", "critic.use_three_heads_critic=True"],
        "either three or two value heads",
        ["critic.use_three_heads_critic=True", "critic.use_two_heads_critic=False"],
    ),
    "heads that turn_gae does not read": (
        ["algorithm.adv_estimator=turn_gae", "critic.use_two_heads_critic=True"],
        "turn_gae reads one value head",
        ["algorithm.adv_estimator=turn_gae", "critic.use_two_heads_critic=null"],
    ),
    "heads without a critic": (
        ["algorithm.adv_estimator=grpo", "env.rollout.n=8", "critic.use_three_heads_critic=True"],
        "grpo starts no critic",
        ["algorithm.adv_estimator=grpo", "env.rollout.n=8", "critic.use_three_heads_critic=null"],
    ),
    "a critic for nothing": (
        ["algorithm.adv_estimator=rloo", "env.rollout.n=8", "critic.enable=True"],
        "a critic would be trained for nothing",
        ["algorithm.adv_estimator=rloo", "env.rollout.n=8", "critic.enable=null"],
    ),
    "a group of one": (
        ["algorithm.adv_estimator=gigpo"],
        "env.rollout.n=1 plays one",
        ["algorithm.adv_estimator=gigpo", "env.rollout.n=8"],
    ),
    "a filter over groups of one": (
        ["algorithm.filter_groups.enable=True"],
        "plays one episode of each",
        ["algorithm.filter_groups.enable=True", "env.rollout.n=8"],
    ),
    "a filter that never ends": (
        ["algorithm.filter_groups.enable=True", "env.rollout.n=8", "algorithm.filter_groups.max_num_gen_batches=0"],
        "a step never ends",
        ["algorithm.filter_groups.enable=True", "env.rollout.n=8", "algorithm.filter_groups.max_num_gen_batches=10"],
    ),
    "a filter by something else": (
        ["algorithm.filter_groups.enable=True", "env.rollout.n=8", "algorithm.filter_groups.metric=acc"],
        "episodes are compared by their reward",
        ["algorithm.filter_groups.enable=True", "env.rollout.n=8", "algorithm.filter_groups.metric=reward"],
    ),
    "a lambda over 1": (
        ["algorithm.adv_estimator=turn_gae", "algorithm.lam=1.1"],
        "(algorithm.lam) = 1.1 is not in [0, 1]",
        ["algorithm.adv_estimator=turn_gae", "algorithm.lam=1.0"],
    ),
    "a price that pays": (
        ["algorithm.hae.switch_cost=-0.1"],
        "is a price, so it must be >= 0",
        ["algorithm.hae.switch_cost=0.1"],
    ),
    "unknown debtor": (
        ["algorithm.hae.penalty_credit=token"],
        "is not one of",
        ["algorithm.hae.penalty_credit=turn"],
    ),
    "async_save of the actor": (
        ["actor_rollout_ref.actor.checkpoint.async_save=True"],
        "verl#7952",
        ["actor_rollout_ref.actor.checkpoint.async_save=False"],
    ),
    "async_save of the critic": (
        ["critic.checkpoint.async_save=True"],
        "silently starts again at step 0",
        ["critic.checkpoint.async_save=False"],
    ),
    "resume from nowhere": (
        ["trainer.resume_mode=resume_path"],
        "needs trainer.resume_from_path=",
        ["trainer.resume_mode=auto"],
    ),
    "max_steps 0": (["env.max_steps=0"], "at least 1 is needed", ["env.max_steps=1"]),
    "no held-out tasks": (["env.val_tasks=0"], "at least 1 is needed", ["env.val_tasks=1"]),
    "history before the start": (["env.history_length=-1"], "at least 0 is needed", ["env.history_length=1"]),
    "no episodes": (["env.rollout.n=0"], "at least one episode per task", ["env.rollout.n=1"]),
    "two numbers of episodes": (
        ["actor_rollout_ref.rollout.n=4"],
        "follows env.rollout.n=1",
        ["actor_rollout_ref.rollout.n=4", "env.rollout.n=4"],
    ),
    "only the critic": (
        ["trainer.critic_warmup=3", "trainer.total_training_steps=2"],
        "the run ends with step 2",
        ["trainer.critic_warmup=0", "trainer.total_training_steps=2"],
    ),
    "a lockstep that waits for ever": (
        ["env.lockstep=true", "env.pool.num_workers=2", "env.pool.envs_per_worker=16"],
        "plays all 128 episodes at once",
        ["env.lockstep=true", "env.pool.num_workers=2", "env.pool.envs_per_worker=null"],
    ),
    "a lockstep whose worker is too small": (
        ["env.lockstep=true", "env.pool.envs_per_worker=8"],
        "may have no room for them",
        ["env.lockstep=true", "env.pool.envs_per_worker=null"],
    ),
    "a lockstep of a validation that plays every task twice": (
        [
            "env.lockstep=true",
            "actor_rollout_ref.rollout.val_kwargs.n=2",
            "env.pool.num_workers=2",
            "env.pool.envs_per_worker=64",
        ],
        "plays all 256 episodes at once",
        [
            "env.lockstep=true",
            "actor_rollout_ref.rollout.val_kwargs.n=2",
            "env.pool.num_workers=2",
            "env.pool.envs_per_worker=null",
        ],
    ),
    "a validation in parts": (
        ["data.val_batch_size=64"],
        "env.val_tasks=128 held-out tasks are played at once",
        ["data.val_batch_size=null"],
    ),
    "heads that are text": (
        ["critic.use_two_heads_critic=no"],
        "true, false or null is expected",
        ["critic.use_two_heads_critic=null"],
    ),
    "a folder of games that is not read": (
        ["env.alfworld.data_dir=games"],
        "would not be read: env.alfworld.games=generated",
        ["env.alfworld.data_dir=null"],
    ),
    "no imitation": (["warm_start.steps=0"], "a whole number from 1 on, or null", ["warm_start.steps=null"]),
    "no process": (["trainer.n_gpus_per_node=0"], "at least one training process", ["trainer.n_gpus_per_node=1"]),
    "no node": (["trainer.nnodes=0"], "at least one training process", ["trainer.nnodes=1"]),
    "a weight that pays": (["critic.term_value_coef=-1"], "a number from 0 on", ["critic.term_value_coef=1"]),
    "a weight that is none": (
        ["algorithm.gigpo.step_weight=nan"],
        "a number from 0 on",
        ["algorithm.gigpo.step_weight=1"],
    ),
    "no discount at all": (["algorithm.gamma=null"], "a number is expected", ["algorithm.gamma=0.95"]),
    "no tasks": (["data.train_batch_size=0"], "at least one task per step", ["data.train_batch_size=64"]),
    "episodes do not divide": (
        ["data.train_batch_size=63", "trainer.n_gpus_per_node=2"],
        "63 episodes cannot be shared out to 2 training processes",
        ["data.train_batch_size=62", "trainer.n_gpus_per_node=2"],
    ),
    "mini-batches do not divide": (
        [
            "algorithm.updates_per_step=null",
            "actor_rollout_ref.actor.ppo_mini_batch_size=7",
            "critic.ppo_mini_batch_size=256",
            "trainer.n_gpus_per_node=2",
        ],
        "7 rows cannot be shared out to 2 training processes",
        [
            "algorithm.updates_per_step=null",
            "actor_rollout_ref.actor.ppo_mini_batch_size=6",
            "critic.ppo_mini_batch_size=256",
            "trainer.n_gpus_per_node=2",
        ],
    ),
    "no updates": (
        ["algorithm.updates_per_step=0"],
        "a whole number from 1 on, or null",
        ["algorithm.updates_per_step=4"],
    ),
    "half an update": (["algorithm.updates_per_step=2.5"], "a whole number", ["algorithm.updates_per_step=4"]),
    "a row longer than a micro-batch": (
        ["actor_rollout_ref.actor.ppo_max_token_len_per_gpu=100"],
        "less than one row may need (data.max_prompt_length + data.max_response_length = 304)",
        ["actor_rollout_ref.actor.ppo_max_token_len_per_gpu=304"],
    ),
    "packed attention of padded rows": (
        [
            "actor_rollout_ref.model.override_config.attn_implementation=torch_varlen",
            "actor_rollout_ref.model.external_lib=verl_plugins.packed",
        ],
        "is for rows without padding",
        [
            "actor_rollout_ref.model.override_config.attn_implementation=sdpa",
            "actor_rollout_ref.model.external_lib=verl_plugins.packed",
        ],
    ),
    "packed attention that nobody registers": (
        ["critic.model.override_config.attn_implementation=torch_varlen", "critic.model.use_remove_padding=True"],
        "critic.model.external_lib=verl_plugins.packed",
        [
            "critic.model.override_config.attn_implementation=torch_varlen",
            "critic.model.use_remove_padding=True",
            "critic.model.external_lib=verl_plugins.packed",
        ],
    ),
    "packed attention of rows split over GPUs": (
        [
            "critic.model.override_config.attn_implementation=torch_varlen",
            "critic.model.use_remove_padding=True",
            "critic.model.external_lib=verl_plugins.packed",
            "critic.ulysses_sequence_parallel_size=2",
        ],
        "critic.ulysses_sequence_parallel_size=2 splits rows over GPUs",
        [
            "critic.model.override_config.attn_implementation=torch_varlen",
            "critic.model.use_remove_padding=True",
            "critic.model.external_lib=verl_plugins.packed",
            "critic.ulysses_sequence_parallel_size=1",
        ],
    ),
    "unknown environment": (
        ["env.env_name=alfworld"],
        "is not known. Known: alfworld/AlfredTWEnvOptions",
        ["env.env_name=alfworld/AlfredTWEnvOptions"],
    ),
    "a module that is not there": (
        ["env.env_name=no_such_module:GAME"],
        "cannot be imported (No module named 'no_such_module'). PYTHONPATH must hold its folder",
        ["env.env_name=alfworld/AlfredTWEnvOptions"],
    ),
    "a module without that environment": (
        ["env.env_name=json:GAME"],
        "there is no AgentKind 'GAME' in ",
        ["env.env_name=alfworld/AlfredTWEnvOptions"],
    ),
    "flat replies under hae": (
        ["env.env_name=alfworld/AlfredTWEnv"],
        "needs replies with sub-goals",
        ["env.env_name=alfworld/AlfredTWEnvOptions"],
    ),
    "a short keep of nothing": (
        ["env.short_keep=true", "algorithm.adv_estimator=turn_gae", "env.env_name=alfworld/AlfredTWEnv"],
        "is flat. env.short_keep=false",
        ["env.short_keep=false", "algorithm.adv_estimator=turn_gae", "env.env_name=alfworld/AlfredTWEnv"],
    ),
    "unknown prompt style": (["env.prompt_style=short"], "is not full or compact", ["env.prompt_style=full"]),
    "unknown games": (["env.alfworld.games=mine"], "is not auto, published", ["env.alfworld.games=auto"]),
    "no end": (
        ["trainer.total_training_steps=0"],
        "say how long to train",
        ["trainer.total_training_steps=150"],
    ),
    "FSDP1": (["critic.strategy=fsdp"], "is not supported here", ["critic.strategy=fsdp2"]),
    "asynchronous trainer": (
        ["trainer.v1.trainer_mode=colocate_async"],
        "only verl's synchronous V1 trainer",
        ["trainer.use_v1=True", "trainer.v1.trainer_mode=sync"],
    ),
    "a penalty that rewards": (
        ["algorithm.hae.keep_penalty=0.3"],
        "it must be <= 0",
        ["algorithm.hae.keep_penalty=-0.3"],
    ),
    "a discount over 1": (["algorithm.gamma=1.5"], "is not in [0, 1]", ["algorithm.gamma=1.0"]),
    "unknown switch advantage": (
        ["algorithm.hae.switch_advantage=both"],
        "is not one of",
        ["algorithm.hae.switch_advantage=segment_return"],
    ),
    "unknown penalty mode": (
        ["algorithm.hae.keep_penalty_mode=square"],
        "is not one of",
        ["algorithm.hae.keep_penalty_mode=fixed"],
    ),
    "KL in the reward": (
        ["algorithm.use_kl_in_reward=True"],
        "no meaning for turn-level rewards",
        ["algorithm.use_kl_in_reward=False", "actor_rollout_ref.actor.use_kl_loss=True"],
    ),
    "particle filter": (
        ["algorithm.use_pf_ppo=True"],
        "is not supported here",
        ["algorithm.use_pf_ppo=False"],
    ),
    "text for a number": (["env.max_steps=many"], "a number is expected", ["env.max_steps=20"]),
    "nothing for a number": (["env.val_tasks=null"], "a number is expected", ["env.val_tasks=128"]),
    "text for true or false": (
        ["algorithm.hae.norm_adv=always"],
        "true or false is expected",
        ["algorithm.hae.norm_adv=True"],
    ),
}


def message_of(*overrides: str, profile: str = "cpu") -> str:
    with pytest.raises(ConfigError) as refused:
        check(composed(*overrides, profile=profile))
    return str(refused.value)


@pytest.mark.parametrize(("typed", "said", "mends"), CASES.values(), ids=CASES.keys())
def test_a_problem_is_named_with_what_mends_it(typed, said, mends):
    message = message_of(*typed)
    assert "(1 problem)" in message and said in message
    for override in typed:
        key = override.split("=")[0]
        assert key in message or override in mends
    for override in mends:
        assert override in message or override in typed
    check(composed(*mends))


def test_the_papers_penalties_on_gpus():
    """-0.3 for each KEEP turn on ALFWorld; in the shop -3.5 for an episode of them."""
    found = [reference("gpu", world).algorithm.hae for world in ("alfworld", "webshop")]
    assert [(hae.keep_penalty, hae.keep_penalty_mode) for hae in found] == [(-0.3, "fixed"), (-3.5, "normalized")]


def test_estimators_of_groups_have_no_critic_to_warm_up():
    groups = ("algorithm.adv_estimator=grpo", "env.rollout.n=8", "data.train_batch_size=8")
    check(composed(*groups, "trainer.total_training_steps=2"))


def test_heads_of_another_estimator_are_one_problem():
    heads = ("critic.use_three_heads_critic=true", "critic.use_two_heads_critic=true")
    assert "(1 problem)" in message_of("algorithm.adv_estimator=turn_gae", *heads)


def test_all_problems_are_reported_together():
    message = message_of(
        "env.max_steps=0",
        "algorithm.hae.lam_seg=2",
        "algorithm.hae.keep_penalty=1",
        "critic.enable=False",
        "data.train_batch_size=0",
        "critic.checkpoint.async_save=True",
        "+algorithm.hae.switch_rate_floor=0.1",
    )
    assert "(7 problems)" in message
    assert len(re.findall(r"^  - ", message, re.MULTILINE)) == 7


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("+algorithm.hae.keep_penalti=-0.1", "algorithm.hae.keep_penalty"),
        ("+env.max_step=10", "env.max_steps"),
        ("+algorithm.lam_seg=0.9", "algorithm.hae.lam_seg"),
        ("+algorithm.hae.keep_penalty_skip_first=True", "algorithm.hae.keep_penalty"),
        (  # the name of a section that takes any key, but where there is none
            "+override_config.attn_implementation=sdpa",
            "actor_rollout_ref.model.override_config.attn_implementation",
        ),
    ],
)
def test_a_key_nobody_reads_is_refused_with_a_suggestion(typed, meant):
    message = message_of(typed)
    assert "no such key, nothing would read it. Did you mean" in message and meant in message


def test_sections_of_the_libraries_behind_verl_take_any_key():
    overrides = [
        "+actor_rollout_ref.model.override_config.rope_theta=1e6",
        "+actor_rollout_ref.rollout.engine_kwargs.vllm.seed=3",
        "+ray_kwargs.ray_init.include_dashboard=False",
    ]
    check(composed(*overrides))


def test_unknown_overrides_are_found_before_hydra_stops_at_the_first():
    with pytest.raises(ConfigError) as refused:
        check_overrides(["profile=cpu", "env.max_step=3", "algorithm.hae.lamseg=1", "env.seed=1", "++env.new=1"])
    message = str(refused.value)
    assert "(2 problems)" in message
    assert "env.max_steps" in message and "algorithm.hae.lam_seg" in message
    with pytest.raises(ConfigError, match="profile=tpu is not one of cpu, gpu"):
        check_overrides(["profile=tpu"])
    check_overrides(["profile=cpu", "env=alfworld", "env.seed=1", "+actor_rollout_ref.model.override_config.x=1"])


@pytest.mark.parametrize("contradiction", ["critic.use_two_heads_critic=False", "algorithm.hae.penalty_credit=switch"])
def test_a_preset_is_not_contradicted(contradiction):
    with pytest.raises(ConfigError, match=f"{contradiction} contradicts algorithm/hae=paper, which sets"):
        check_overrides(["profile=cpu", "algorithm/hae=paper", contradiction])


@pytest.mark.parametrize(
    ("estimator", "unread", "read"),
    [
        ("turn_gae", "algorithm.hae.switch_cost=0.3", "algorithm.hae.norm_adv=false"),
        ("gae", "algorithm.hae.bootstrap_truncated=true", "algorithm.lam=0.9"),
        ("gigpo", "algorithm.hae.keep_penalty=-0.1", "algorithm.hae.random_signs=true"),
    ],
)
def test_what_an_estimator_does_not_read_is_refused(estimator, unread, read):
    chosen = ["profile=cpu", f"algorithm.adv_estimator={estimator}"]
    check_overrides([*chosen, read])
    with pytest.raises(ConfigError, match=rf"{unread}: {estimator} does not read it.*algorithm\.adv_estimator=hae"):
        check_overrides([*chosen, unread])
    check_overrides(["profile=cpu", unread])


def test_the_dials_of_a_preset_can_be_turned():
    check_overrides(["profile=cpu", "algorithm/hae=living", "algorithm.hae.switch_cost=0.05"])
    check_overrides(["profile=cpu", "algorithm/hae=custom", "critic.use_two_heads_critic=True"])
    check_overrides(["profile=cpu", "algorithm/hae=paper", "algorithm.hae.switch_advantage=termination"])


def test_an_unknown_preset_is_named():
    with pytest.raises(ConfigError, match="algorithm/hae=papers is not one of custom, released, paper, living"):
        check_overrides(["profile=cpu", "algorithm/hae=papers"])


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("trainer.logger=[tensorboard, wandb", "needs quotes, for example 'run_dir="),
        ("run_dir=outputs/a(1)", "needs quotes, for example 'run_dir="),
        ("algorithm.adv_estimator=gae,grpo", "several values would be several runs"),
    ],
)
def test_what_hydra_cannot_read_is_no_traceback(typed, said):
    with pytest.raises(ConfigError, match=re.escape(said)):
        check_overrides(["profile=cpu", typed, "algorithm.hae.switch_cost=0.1"])
    check_overrides(["profile=cpu", 'run_dir="outputs/a (1)"'])


def test_nothing_similar_is_no_suggestion():
    assert suggestion("zzz.qqq", ["env.max_steps"]) == ""


# ---------------------------------------------------------------------------------------------------------------------
# The model.


def make_model_folder(folder, vocabulary: int, tokens: int, positions: int = 1024, template: str | None = "x"):
    words = {f"w{index}": index for index in range(tokens)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="w0"))
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="w1", pad_token="w2", unk_token="w0", chat_template=template
    ).save_pretrained(folder)
    Qwen2Config(
        vocab_size=vocabulary, hidden_size=32, num_attention_heads=1, max_position_embeddings=positions
    ).save_pretrained(folder)
    return [f"actor_rollout_ref.model.path={folder}"]


def size_of_tokenizer(folder) -> int:
    from transformers import AutoTokenizer

    return len(AutoTokenizer.from_pretrained(folder))


def test_a_model_that_fits_its_tokenizer_is_accepted(tmp_path):
    make_model_folder(tmp_path, 100, 100)
    overrides = make_model_folder(tmp_path, size_of_tokenizer(tmp_path), 100)
    check_model(composed(*overrides))


def test_a_vocabulary_longer_than_the_tokenizer_has_to_be_accepted(tmp_path):
    overrides = make_model_folder(tmp_path, 500, 100)
    with pytest.raises(ConfigError, match=r"vocabulary \(500\) is longer.*trainer.allow_padded_vocabulary=True"):
        check_model(composed(*overrides))
    check_model(composed(*overrides, "trainer.allow_padded_vocabulary=True"))


def test_a_vocabulary_shorter_than_the_tokenizer_is_never_accepted(tmp_path):
    overrides = make_model_folder(tmp_path, 50, 100)
    with pytest.raises(ConfigError, match="does not belong to this tokenizer"):
        check_model(composed(*overrides, "trainer.allow_padded_vocabulary=True"))


def test_what_else_can_be_wrong_with_a_model_is_reported_together(tmp_path):
    overrides = make_model_folder(tmp_path, 500, 100, positions=256, template=None)
    with pytest.raises(ConfigError) as refused:
        check_model(composed(*overrides))
    message = str(refused.value)
    assert "(3 problems)" in message and "no chat template" in message
    assert "= 304 exceeds the model's 256 positions. data.max_prompt_length=208" in message


def test_the_size_of_a_checkpoint_is_estimated_from_the_weights(tmp_path):
    """Policy and critic, each with float32 weights and the two moments of AdamW."""
    sizes = dict(vocab_size=11, hidden_size=4, intermediate_size=6, num_attention_heads=1, num_key_value_heads=1)
    config = Qwen2Config(**sizes, num_hidden_layers=1, tie_word_embeddings=True)
    config.save_pretrained(tmp_path)
    parameters = sum(parameter.numel() for parameter in Qwen2ForCausalLM(config).parameters())
    assert parameters == 11 * 4 + 4 * (4 * 4) + 3 * 4 + 3 * 4 * 6 + 3 * 4, "the tied output layer is stored once"
    assert checkpoint_bytes(str(tmp_path), with_critic=True) == parameters * 4 * 3 * 2
    assert checkpoint_bytes(str(tmp_path), with_critic=False) == parameters * 4 * 3


# ---------------------------------------------------------------------------------------------------------------------
# Games.


@pytest.fixture(autouse=True)
def no_published_games(monkeypatch):
    monkeypatch.delenv("ALFWORLD_DATA", raising=False)


def test_published_games_that_are_not_there(tmp_path):
    with pytest.raises(ConfigError, match=r"looked in nowhere.*env.alfworld.games=generated"):
        prepare_games(composed("env.alfworld.games=published"), progress=False)
    config = composed("env.alfworld.games=published", f"env.alfworld.data_dir={tmp_path}")
    with pytest.raises(ConfigError, match=rf"looked in {tmp_path}.*env.alfworld.data_dir="):
        prepare_games(config, progress=False)


def test_a_data_folder_without_games_is_not_silently_replaced(tmp_path):
    config = composed("env.alfworld.games=auto", f"env.alfworld.data_dir={tmp_path}")
    with pytest.raises(ConfigError, match="env.alfworld.data_dir=null for generated games"):
        prepare_games(config, progress=False)


@pytest.mark.parametrize(
    ("games", "folder", "said"),
    [
        ("generated", "json_2.1.1", "is not read, because env.alfworld.games=generated"),
        ("auto", "", "holds no json_2.1.1"),
    ],
)
def test_games_that_are_named_and_not_played_are_told_of(games, folder, said, tmp_path, monkeypatch, capsys):
    (tmp_path / folder).mkdir(exist_ok=True)
    monkeypatch.setenv("ALFWORLD_DATA", str(tmp_path))
    monkeypatch.setattr("recipe.hiper.tasks.preparation.generate_games", lambda *arguments, **more: None)
    prepare_games(composed(f"env.alfworld.games={games}"), progress=False)
    assert said in capsys.readouterr().err


def test_zero_games(tmp_path):
    (tmp_path / "json_2.1.1" / "valid_unseen").mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"0 playable ALFWorld games.*env.alfworld.data_dir="):
        prepare_panels(composed(), tmp_path)


def test_an_unknown_split(tmp_path):
    with pytest.raises(ConfigError, match=r"env.alfworld.eval_dataset=test.*env.alfworld.eval_dataset=valid_unseen"):
        prepare_panels(composed("env.alfworld.eval_dataset=test"), tmp_path)


def test_unknown_kinds_of_tasks():
    config = composed("env.alfworld.generated.task_types=[look_at_obj_in_light,juggle]")
    with pytest.raises(ConfigError, match=r"juggle not among.*env.alfworld.generated.task_types=null"):
        game_spec(config)


def test_one_kind_of_task_needs_no_brackets():
    spec = game_spec(composed("env.alfworld.generated.task_types=look_at_obj_in_light"))
    assert [kind.value for kind in spec.task_types] == ["look_at_obj_in_light"]


@pytest.mark.parametrize("typed", ["all", "4-6", "5", "[5]", "[6,4]", "[2,6]", "[4.5,6]"])
def test_rooms_of_no_size(typed):
    with pytest.raises(ConfigError, match=r"env.alfworld.generated.receptacles=\[4,6\]"):
        game_spec(composed(f"env.alfworld.generated.receptacles={typed}"))
    assert game_spec(composed("env.alfworld.generated.receptacles=null")).receptacles is None


def test_no_model(tmp_path):
    with pytest.raises(ConfigError, match="actor_rollout_ref.model.path=<folder or name>"):
        prepare_model(composed("warm_start.enable=False"), tmp_path, progress=False)
    with pytest.raises(ConfigError, match="env.alfworld.games=generated"):
        prepare_model(composed(), tmp_path, progress=False)
