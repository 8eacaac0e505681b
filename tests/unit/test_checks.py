# SPDX-License-Identifier: Apache-2.0
"""Bad input: every problem is reported with what to type, before anything starts."""

from __future__ import annotations

import re

import pytest
from made_config import check, composed, reference
from typed_remedies import apply_remedy, remedies

from agent_system.errors import ConfigError

# What was typed, and a part of the message.
CASES = {
    "seeded requests and prompts in parts": (
        ["actor_rollout_ref.rollout.enable_chunked_prefill=true"],
        "vLLM fails at the first prompt that it cuts",
    ),
    "a prompt that is never scheduled": (
        ["actor_rollout_ref.rollout.max_num_batched_tokens=200"],
        "less than a prompt and its reply may need (data.max_prompt_length + data.max_response_length = 304)",
    ),
    "unknown estimator": (["algorithm.adv_estimator=a2c"], "not one of hae"),
    "critic off": (["critic.enable=False"], "estimates advantages from values"),
    "no heads": (["critic.use_three_heads_critic=False"], "either three or two value heads"),
    "too many heads": (
        ["critic.use_two_heads_critic=True", "critic.use_three_heads_critic=True"],
        "either three or two value heads",
    ),
    "heads that turn_gae does not read": (
        ["algorithm.adv_estimator=turn_gae", "critic.use_two_heads_critic=True"],
        "turn_gae reads one value head",
    ),
    "heads without a critic": (
        ["algorithm.adv_estimator=grpo", "env.rollout.n=8", "critic.use_three_heads_critic=True"],
        "grpo has no critic",
    ),
    "a critic for nothing": (
        ["algorithm.adv_estimator=rloo", "env.rollout.n=8", "critic.enable=True"],
        "a critic would be trained for nothing",
    ),
    "a group of one": (["algorithm.adv_estimator=gigpo"], "env.rollout.n=1 plays one"),
    "a filter over groups of one": (["algorithm.filter_groups.enable=True"], "plays one episode of each"),
    "a filter that never ends": (
        ["algorithm.filter_groups.enable=True", "env.rollout.n=8", "algorithm.filter_groups.max_num_gen_batches=0"],
        "at least 1 is needed (the step ends with an error after this many batches of such tasks)",
    ),
    "a filter by something else": (
        ["algorithm.filter_groups.enable=True", "env.rollout.n=8", "algorithm.filter_groups.metric=acc"],
        "it can only be reward (episodes are compared by their reward)",
    ),
    "a lambda over 1": (
        ["algorithm.adv_estimator=turn_gae", "algorithm.lam=1.1"],
        "algorithm.lam=1.1: at most 1 is needed",
    ),
    "a price that pays": (
        ["algorithm.hae.switch_cost=-0.1"],
        "at least 0 is needed (price of a SWITCH, charged to that decision alone)",
    ),
    "unknown debtor": (["algorithm.hae.penalty_credit=token"], "it is not one of turn, switch"),
    "async_save of the actor": (["actor_rollout_ref.actor.checkpoint.async_save=True"], "verl#7952"),
    "async_save of the critic": (["critic.checkpoint.async_save=True"], "silently starts at step 0"),
    "resume from nowhere": (
        ["trainer.resume_mode=resume_path"],
        "is not set. Try: trainer.resume_from_path=",
    ),
    "max_steps 0": (["env.max_steps=0"], "at least 1 is needed (turns after which an episode is truncated)"),
    "no held-out tasks": (["env.val_tasks=0"], "at least 1 is needed"),
    "history before the start": (
        ["env.history_length=-1"],
        "at least 0 is needed (earlier turns that a prompt may show)",
    ),
    "no episodes": (["env.rollout.n=0"], "at least 1 is needed (episodes per task)"),
    "two numbers of episodes": (["actor_rollout_ref.rollout.n=4"], "follows env.rollout.n=1"),
    "only the critic": (
        ["trainer.critic_warmup=3", "trainer.total_training_steps=2"],
        "ends with trainer.total_training_steps=2",
    ),
    "a lockstep that waits for ever": (
        ["env.lockstep=true", "env.pool.num_workers=2", "env.pool.envs_per_worker=16"],
        "plays all 128 episodes at once",
    ),
    "a lockstep whose worker is too small": (
        ["env.lockstep=true", "env.pool.envs_per_worker=8"],
        "may have no room for them",
    ),
    "a lockstep of a validation that plays every task twice": (
        [
            "env.lockstep=true",
            "actor_rollout_ref.rollout.val_kwargs.n=2",
            "env.pool.num_workers=2",
            "env.pool.envs_per_worker=64",
        ],
        "plays all 256 episodes at once",
    ),
    "a validation in parts": (["data.val_batch_size=64"], "env.val_tasks=128 held-out tasks are played at once"),
    "heads that are text": (["critic.use_two_heads_critic=no"], "true or false is needed, or null"),
    "a folder of games that is not read": (
        ["env.alfworld.data_dir=games"],
        "would not be read with env.alfworld.games=generated",
    ),
    "no imitation": (["warm_start.steps=0"], "at least 1 is needed, or null"),
    "no process": (["trainer.n_gpus_per_node=0"], "at least 1 is needed, or null (training processes of a machine)"),
    "no node": (["trainer.nnodes=0"], "at least 1 is needed (machines)"),
    "a weight that pays": (["critic.term_value_coef=-1"], "at least 0 is needed (weight of the loss"),
    "a weight that is none": (["algorithm.gigpo.step_weight=nan"], "a finite number is needed"),
    "no discount at all": (["algorithm.gamma=null"], "a number is needed (discount per turn)"),
    "no tasks": (["data.train_batch_size=0"], "at least 1 is needed (tasks per step)"),
    "episodes do not divide": (
        ["data.train_batch_size=63", "trainer.n_gpus_per_node=2"],
        "63 episodes, which cannot be divided among 2 training processes",
    ),
    "mini-batches do not divide": (
        [
            "algorithm.updates_per_step=null",
            "actor_rollout_ref.actor.ppo_mini_batch_size=7",
            "critic.ppo_mini_batch_size=256",
            "trainer.n_gpus_per_node=2",
        ],
        "7 rows cannot be divided among 2 training processes",
    ),
    "no updates": (["algorithm.updates_per_step=0"], "at least 1 is needed, or null"),
    "half an update": (["algorithm.updates_per_step=2.5"], "a whole number is needed, or null"),
    "a row longer than a micro-batch": (
        ["actor_rollout_ref.actor.ppo_max_token_len_per_gpu=100"],
        "less than one row may need (data.max_prompt_length + data.max_response_length = 304)",
    ),
    "packed attention of padded rows": (
        [
            "actor_rollout_ref.model.override_config.attn_implementation=torch_varlen",
            "actor_rollout_ref.model.external_lib=verl_plugins.packed",
        ],
        "works on rows without padding only",
    ),
    "packed attention that nobody registers": (
        ["critic.model.override_config.attn_implementation=torch_varlen", "critic.model.use_remove_padding=True"],
        "critic.model.external_lib=verl_plugins.packed",
    ),
    "packed attention of rows split over GPUs": (
        [
            "critic.model.override_config.attn_implementation=torch_varlen",
            "critic.model.use_remove_padding=True",
            "critic.model.external_lib=verl_plugins.packed",
            "critic.ulysses_sequence_parallel_size=2",
        ],
        "critic.ulysses_sequence_parallel_size=2 splits rows over GPUs",
    ),
    "unknown environment": (["env.env_name=alfworld"], "is not known. Known: alfworld/AlfredTWEnvOptions"),
    "a module that is not there": (["env.env_name=no_such_module:GAME"], "cannot be imported"),
    "a module without that environment": (["env.env_name=json:GAME"], "GAME"),
    "flat replies under hae": (["env.env_name=alfworld/AlfredTWEnv"], "needs replies with sub-goals"),
    "a short keep of nothing": (
        ["env.short_keep=true", "algorithm.adv_estimator=turn_gae", "env.env_name=alfworld/AlfredTWEnv"],
        "env.env_name=alfworld/AlfredTWEnv has no sub-goals",
    ),
    "unknown prompt style": (["env.prompt_style=short"], "it is not one of full, compact"),
    "unknown games": (["env.alfworld.games=mine"], "is not one of auto, published, generated"),
    "no end": (["trainer.total_training_steps=0"], "at least 1 is needed (the run ends after this step)"),
    "FSDP1": (["critic.strategy=fsdp"], "it can only be fsdp2"),
    "asynchronous trainer": (["trainer.v1.trainer_mode=colocate_async"], "only verl's synchronous V1 trainer"),
    "a penalty that rewards": (
        ["algorithm.hae.keep_penalty=0.3"],
        "at most 0 is needed (added to the reward because of KEEP turns)",
    ),
    "a discount over 1": (["algorithm.gamma=1.5"], "at most 1 is needed (discount per turn)"),
    "unknown switch advantage": (
        ["algorithm.hae.switch_advantage=both"],
        "it is not one of segment_return, termination",
    ),
    "unknown penalty mode": (["algorithm.hae.keep_penalty_mode=square"], "it is not one of fixed, normalized"),
    "KL in the reward": (["algorithm.use_kl_in_reward=True"], "has no meaning for the turn-level rewards of hae"),
    "particle filter": (["algorithm.use_pf_ppo=True"], "is not supported here"),
    "text for a number": (["env.max_steps=many"], "a whole number is needed"),
    "nothing for a number": (["env.val_tasks=null"], "a whole number is needed"),
    "text for true or false": (["algorithm.hae.norm_adv=always"], "true or false is needed"),
    "a fraction of a task": (["env.val_tasks=1.5"], "a whole number is needed"),
    "a fraction of a turn": (["env.max_steps=2.5"], "a whole number is needed"),
    "a fraction of a seed": (["env.seed=1.5"], "a whole number is needed"),
    "a negative seed": (["env.seed=-1"], "at least 0 is needed"),
    "an unknown logger": (["trainer.logger=[tensorbord]"], "it is not one of wandb, mlflow"),
    "a logger that is not installed": (
        ["trainer.logger=[tensorboard,clearml]"],
        "the package clearml, which clearml needs, is not installed",
    ),
    "no time to answer": (["env.pool.timeout_s=0"], "more than 0 is needed"),
    "fewer than no environment processes": (["env.pool.num_workers=-1"], "at least 1 is needed, or null"),
    "an interval before the start": (["trainer.poll_interval=-1"], "more than 0 is needed"),
    "episodes of every minus second step": (["trainer.episodes_every=-2"], "at least 0 is needed"),
    "a prompt of minus three tokens": (["data.max_prompt_length=-3"], "at least 1 is needed"),
    "a reply of no tokens": (["data.max_response_length=0"], "at least 1 is needed"),
    "sampling at temperature 0": (["actor_rollout_ref.rollout.temperature=0"], "more than 0 is needed"),
    "a validation that plays nothing": (["actor_rollout_ref.rollout.val_kwargs.n=0"], "at least 1 is needed"),
    "heads that do not divide": (["warm_start.model.heads=3"], "the heads share the hidden dimensions equally"),
    "heads that vLLM does not know": (
        ["warm_start.model.heads=8"],
        "vLLM on CPU has no attention for heads of 16 dimensions",
    ),
    "a hidden size without heads": (
        ["warm_start.model.hidden=100"],
        "warm_start.model.heads=4 with warm_start.model.hidden=100",
    ),
    "a prompt longer than the small model": (
        ["data.max_prompt_length=1000"],
        "exceeds the 1024 positions of the model",
    ),
    "a model that is not there": (["actor_rollout_ref.model.path=./no/such/model"], "there is no such folder"),
    "a critic that is not there": (["critic.model.path=/no/such/model"], "there is no such folder"),
    "a folder that is no model": (["actor_rollout_ref.model.path=/"], "holds no config.json"),
    "no model": (["warm_start.enable=false"], "there is no model to train"),
    "an unknown KL estimator": (["actor_rollout_ref.actor.kl_loss_type=full"], "it is not one of kl, k1"),
    "an unknown loss": (["critic.loss_agg_mode=mean"], "it is not one of token-mean"),
    "an unknown schedule": (
        ["actor_rollout_ref.actor.optim.lr_scheduler_type=linear"],
        "it is not one of constant, cosine",
    ),
    "rows without a limit": (["critic.use_dynamic_bsz=false"], "needs the rows of a micro-batch"),
    "a model shorter than its replies": (
        ["actor_rollout_ref.rollout.max_model_len=100"],
        "less than a prompt and its reply may need",
    ),
    "two lengths of a prompt": (["actor_rollout_ref.rollout.prompt_length=100"], "follows data.max_prompt_length=256"),
    "an engine of two that is alone": (
        ["actor_rollout_ref.rollout.tensor_model_parallel_size=2"],
        "cannot be divided into engines of 2",
    ),
    "KL twice": (["algorithm.adv_estimator=gae", "algorithm.use_kl_in_reward=true"], "counts the KL divergence twice"),
    "an unknown split of games": (["env.alfworld.eval_dataset=test"], "is not one of valid_seen"),
    "games of no kind": (["env.alfworld.generated.task_types=[juggle]"], "is needed, each at most once"),
    "rooms of no size": (["env.alfworld.generated.receptacles=[6,4]"], "receptacles"),
    "half a game": (["env.alfworld.generated.train=1.5"], "a whole number is needed"),
    "more environments than Ray has CPUs": (
        ["env.pool.num_workers=40", "env.resources_per_worker.num_cpus=1"],
        "is more than Ray has",
    ),
    "a folder without a name": (["run_dir=null"], "text is needed"),
    "an engine of two copies that is alone": (
        ["actor_rollout_ref.rollout.data_parallel_size=2"],
        "cannot be divided into engines of 2",
    ),
    "the most likely tokens only": (["actor_rollout_ref.rollout.top_k=50"], "the gradient would be biased"),
    "the nucleus only": (["actor_rollout_ref.rollout.top_p=0.9"], "the gradient would be biased"),
    "other probabilities": (["actor_rollout_ref.rollout.logprobs_mode=raw_logprobs"], "reports other probabilities"),
    "rounded weights": (["actor_rollout_ref.rollout.quantization=fp8"], "computes with rounded weights"),
    "rounded weights of the engine": (
        ["+actor_rollout_ref.rollout.engine_kwargs.vllm.quantization=fp8"],
        "computes with rounded weights",
    ),
    "rounded keys and values": (
        ["+actor_rollout_ref.rollout.engine_kwargs.vllm.kv_cache_dtype=fp8"],
        "computes with rounded keys and values",
    ),
    "a draft": (
        ["+actor_rollout_ref.rollout.engine_kwargs.vllm.speculative_config={method:ngram,num_speculative_tokens:4}"],
        "accepts tokens that a draft proposes",
    ),
    "logits that are changed": (
        ["+actor_rollout_ref.rollout.engine_kwargs.vllm.logits_processors=[mine:Bias]"],
        "they change the logits after the model",
    ),
    "other sampling parameters": (
        ["+actor_rollout_ref.rollout.engine_kwargs.vllm.override_generation_config={min_p:0.1,repetition_penalty:1.2}"],
        "it replaces the sampling parameters of the run",
    ),
    "a shorter context of the engine": (
        ["+actor_rollout_ref.rollout.engine_kwargs.vllm.max_model_len=100"],
        "less than a prompt and its reply may need",
    ),
    "adapters of Megatron": (["actor_rollout_ref.model.lora.rank=32"], "is not read by FSDP"),
    "an adapter that is not there": (
        ["actor_rollout_ref.model.lora_rank=16", "actor_rollout_ref.model.lora_adapter_path=/no/such/adapter"],
        "there is no such folder",
    ),
    "an adapter of the critic that is none": (["critic.model.lora_adapter_path=/"], "so it is no adapter"),
}


def message_of(*overrides: str, profile: str = "cpu") -> str:
    with pytest.raises(ConfigError) as refused:
        check(composed(*overrides, profile=profile))
    return str(refused.value)


@pytest.mark.parametrize(("typed", "part"), CASES.values(), ids=CASES.keys())
def test_a_problem_is_named_with_what_to_type(typed, part):
    """Each alternative that the message offers is typed, and passes."""
    message = message_of(*typed)
    assert "(1 problem)" in message and part in message
    problem = message.partition("  - ")[2]
    keys = [override.lstrip("+").split("=")[0] for override in typed]
    assert any(key in problem for key in keys)
    alternatives = remedies(problem)
    assert alternatives, message
    for alternative in alternatives:
        corrected = apply_remedy(typed, alternative)
        assert corrected != typed
        check(composed(*corrected))


SHARPENED = [typed for typed, part in CASES.values() if "gradient would be biased" in part or "computes with" in part]


@pytest.mark.parametrize("typed", [*SHARPENED, ["actor_rollout_ref.rollout.max_model_len=257"]])
def test_an_evaluation_may_sample_as_it_likes(typed):
    check(composed(*typed, "trainer.val_only=true", "trainer.resume_mode=disable"))


def test_an_evaluation_needs_room_for_a_prompt():
    """One that fills the context would end it."""
    assert "max_model_len=256" in message_of("actor_rollout_ref.rollout.max_model_len=256", "trainer.val_only=true")


def adapter(folder, rank: int) -> str:
    (folder / "adapter_config.json").write_text(f'{{"r": {rank}, "lora_alpha": 32}}')
    return f"actor_rollout_ref.model.lora_adapter_path={folder}"


def test_an_adapter_needs_its_rank(tmp_path):
    path = adapter(tmp_path, 16)
    without = message_of(path, "actor_rollout_ref.actor.use_kl_loss=false")
    assert "the adapter would not be loaded" in without and "Try: actor_rollout_ref.model.lora_rank=16, or " in without
    other = message_of(path, "actor_rollout_ref.actor.use_kl_loss=false", "actor_rollout_ref.model.lora_rank=8")
    assert "holds an adapter of rank 16, but actor_rollout_ref.model.lora_rank=8" in other
    check(composed(path, "actor_rollout_ref.actor.use_kl_loss=false", "actor_rollout_ref.model.lora_rank=16"))


def test_the_reference_is_the_policy_that_the_run_starts_from(tmp_path):
    """verl's reference with adapters is the model without them, which never saw the format."""
    start = (adapter(tmp_path, 16), "actor_rollout_ref.model.lora_rank=16")
    message = message_of(*start)
    assert "the reference would be the model without this adapter" in message and "Merge the adapter" in message
    in_reward = ("algorithm.adv_estimator=gae", "algorithm.use_kl_in_reward=true")
    assert "or algorithm.use_kl_in_reward=false" in message_of(
        *start, *in_reward, "actor_rollout_ref.actor.use_kl_loss=false"
    )
    check(composed(*start, "trainer.val_only=true", "trainer.resume_mode=disable"))


def test_a_checkpoint_that_is_named_and_not_loaded():
    """With `trainer.resume_mode=auto` verl does not read the path."""
    message = message_of("trainer.resume_from_path=elsewhere")
    assert "is not read with trainer.resume_mode=auto. Try: trainer.resume_from_path=null" in message


def test_the_papers_penalties_on_gpus():
    """-0.3 for each KEEP turn on ALFWorld; in the shop -3.5 for an episode of them."""
    found = [reference("gpu", world).algorithm.hae for world in ("alfworld", "webshop")]
    assert [(hae.keep_penalty, hae.keep_penalty_mode) for hae in found] == [(-0.3, "fixed"), (-3.5, "normalized")]


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("ppo", "algorithm.adv_estimator=ppo is not one of hae, turn_gae"),
        ("nowhere:MINE", "algorithm.adv_estimator=nowhere:MINE: the module nowhere cannot be imported"),
        ("json:MINE", "algorithm.adv_estimator=json:MINE: the module json has no Estimator 'MINE'"),
    ],
)
def test_a_message_names_the_estimator_once(typed, message):
    text = message_of(f"algorithm.adv_estimator={typed}")
    assert f"  - {message}" in text and text.count(f"algorithm.adv_estimator={typed}") == 1


@pytest.mark.parametrize("override", ["algorithm.adv_estimator=grpo", "algorithm.filter_groups.enable=true"])
@pytest.mark.parametrize("tasks", [64, 4])
def test_groups_with_as_many_episodes_as_before(override, tasks):
    fitting = max(1, tasks // 8)
    message = message_of(override, f"data.train_batch_size={tasks}")
    assert f"Try: env.rollout.n=8 data.train_batch_size={fitting} (about as many episodes per step as now)" in message
    grouped = ["env.rollout.n=8", f"data.train_batch_size={fitting}", "algorithm.filter_groups.max_num_gen_batches=4"]
    check(composed(override, *(grouped if "filter" in override else grouped[:2])))


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


# ---------------------------------------------------------------------------------------------------------------------
# Games.


@pytest.fixture(autouse=True)
def no_published_games(monkeypatch):
    monkeypatch.delenv("ALFWORLD_DATA", raising=False)
