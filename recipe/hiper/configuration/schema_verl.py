# SPDX-License-Identifier: Apache-2.0
"""Keys of verl's own that are known to fail late: with these types and ranges they are refused before anything starts.

verl reads them; the sections here only check them. Its other keys are checked for their type (`verl_keys`).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from recipe.hiper.configuration.section import SharedSection

Logger = Literal[
    "wandb",
    "mlflow",
    "swanlab",
    "vemlp_wandb",
    "tensorboard",
    "console",
    "clearml",
    "trackio",
    "file",
    "rl_insight",
]
"""`supported_backend` of verl's Tracking."""

KLType = Literal["kl", "k1", "abs", "mse", "k2", "low_var_kl", "k3", "kl+", "k1+", "abs+", "low_var_kl+", "k3+"]
"""What verl's `kl_penalty` computes. It refuses anything else only at the first update."""

LossAggregation = Literal[
    "token-mean", "token-sum", "seq-mean-token-sum", "seq-mean-token-mean", "seq-mean-token-sum-norm"
]


class OptimizerKeys(SharedSection):
    lr: float = Field(ge=0)
    """learning rate"""
    weight_decay: float = Field(ge=0)
    """weight decay of AdamW"""
    clip_grad: float = Field(gt=0)
    """largest norm of the gradient"""
    lr_warmup_steps: int
    """training steps of linear warm-up: the first of N has a learning rate of `lr / N`; zero or less:
    `lr_warmup_steps_ratio` decides"""
    lr_warmup_steps_ratio: float = Field(ge=0, le=1)
    """warm-up as a share of all steps"""
    lr_scheduler_type: Literal["constant", "cosine"]
    """learning rate after the warm-up"""


class UpdateKeys(SharedSection):
    """What actor and critic have in common."""

    strategy: Literal["fsdp2"]
    """only FSDP2 is supported here"""
    optim: OptimizerKeys
    """optimizer"""
    ppo_mini_batch_size: int = Field(ge=1)
    """rows of a mini-batch, times `env.rollout.n`; not read where `algorithm.updates_per_step` is set"""
    ppo_epochs: int = Field(ge=1)
    """passes over the rows of a step"""
    ppo_max_token_len_per_gpu: int | None = Field(ge=1)
    """tokens of a micro-batch at most; bounds memory and never changes a result; null: on CPU as many as the free
    memory allows, 1024 at most"""
    ppo_micro_batch_size_per_gpu: int | None = Field(ge=1)
    """rows of a micro-batch; read with `use_dynamic_bsz=false`"""
    use_dynamic_bsz: bool
    """cut micro-batches by tokens instead of rows"""
    loss_agg_mode: LossAggregation
    """how the loss of tokens is averaged"""
    shuffle: bool
    """shuffle the rows of a step"""
    data_loader_seed: int | None = Field(ge=0)
    """seed of the mini-batches; follows `env.seed`"""


class ActorKeys(UpdateKeys):
    clip_ratio: float = Field(ge=0)
    """PPO's epsilon"""
    use_kl_loss: bool
    """add the KL divergence from the reference policy to the loss"""
    kl_loss_coef: float = Field(ge=0)
    """weight of the KL divergence"""
    kl_loss_type: KLType
    """estimator of the KL divergence"""
    entropy_coeff: float
    """weight of the entropy bonus"""


class ValidationSampling(SharedSection):
    n: int = Field(ge=1)
    """episodes per held-out task"""
    temperature: float = Field(ge=0)
    """sampling temperature in validation; 0: the most likely token"""
    top_p: float = Field(gt=0, le=1)
    """nucleus sampling in validation"""
    do_sample: bool
    """sample in validation"""


class AgentKeys(SharedSection):
    num_workers: int = Field(ge=1)
    """processes that play episodes"""


class CheckpointEngineKeys(SharedSection):
    update_weights_bucket_megabytes: int | None = Field(ge=1)
    """MiB that are sent to vLLM at once; null: computed from the largest tensor of the model"""


class RolloutKeys(SharedSection):
    name: Literal["vllm"]
    """only vLLM is supported here"""
    mode: Literal["async"]
    """verl removed the other mode"""
    n: int = Field(ge=1)
    """follows `env.rollout.n`"""
    temperature: float = Field(gt=0)
    """sampling temperature in training"""
    top_p: float = Field(gt=0, le=1)
    """nucleus sampling in training; the trainer scores replies under the whole distribution, so only 1 is accepted
    except with `trainer.val_only=true`"""
    prompt_length: int = Field(ge=1)
    """follows `data.max_prompt_length`"""
    response_length: int = Field(ge=1)
    """follows `data.max_response_length`"""
    max_model_len: int | None = Field(ge=1)
    """tokens of a prompt and its reply in vLLM; null: filled in"""
    max_num_batched_tokens: int = Field(ge=1)
    """tokens that vLLM processes at once"""
    max_num_seqs: int = Field(ge=1)
    """requests that vLLM processes at once"""
    enable_chunked_prefill: bool
    """vLLM may process a prompt in parts"""
    gpu_memory_utilization: float | None = Field(gt=0, le=1)
    """share of the GPU's memory for vLLM; null: what policy and critic leave of it, 0.6 at most"""
    tensor_model_parallel_size: int = Field(ge=1)
    """GPUs that share one copy of the model in vLLM"""
    data_parallel_size: int = Field(ge=1)
    """copies of the model in one engine of vLLM; each training process belongs to one copy"""
    pipeline_model_parallel_size: Literal[1]
    """verl does not support pipelines in vLLM"""
    dtype: Literal["bfloat16", "float16", "float32", "auto"]
    """precision of the weights in vLLM"""
    val_kwargs: ValidationSampling
    """sampling in validation"""
    agent: AgentKeys
    """agent loops"""
    checkpoint_engine: CheckpointEngineKeys
    """weight sync"""


class ModelKeys(SharedSection):
    path: str | None = Field(min_length=1)
    """folder or hub name of the model; null with `warm_start.enable=true`: the small model"""
    lora_rank: int = Field(ge=0)
    """rank of the LoRA adapters; 0: all weights are trained"""
    lora_alpha: int = Field(ge=1)
    """the adapters are multiplied with `lora_alpha / lora_rank`"""
    lora_adapter_path: str | None = Field(min_length=1)
    """folder of a saved adapter (PEFT) that training starts from; its rank must be `lora_rank`"""


class DataKeys(SharedSection):
    train_batch_size: int = Field(ge=1)
    """tasks per step"""
    val_batch_size: int | None = Field(ge=1)
    """held-out tasks that are played at once; null: all of them"""
    max_prompt_length: int = Field(ge=1)
    """tokens of a prompt at most; history and observations are cut to fit"""
    max_response_length: int = Field(ge=1)
    """tokens of a reply at most"""
    apply_chat_template_kwargs: dict[str, Any]
    """arguments of the chat template in rollouts, demonstrations and evaluation, for example
    `+data.apply_chat_template_kwargs.enable_thinking=false`"""
    dataloader_num_workers: int = Field(ge=0)
    """processes that load tasks"""
    train_files: str = Field(min_length=1)
    """file of the training tasks, written for every run"""
    val_files: str = Field(min_length=1)
    """file of the held-out tasks, written for every run"""


class FilterGroupsSettings(SharedSection):
    enable: bool
    """play other tasks in place of those whose episodes all get the same reward"""
    metric: Literal["reward"]
    """episodes are compared by their reward"""
    max_num_gen_batches: int = Field(ge=1)
    """the step ends with an error after this many batches of such tasks; without a limit it might never end"""


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


class TrainerKeys(SharedSection):
    device: Literal["cpu", "cuda"]
    """set by the profile"""
    nnodes: int = Field(ge=1)
    """machines"""
    n_gpus_per_node: int | None = Field(ge=1)
    """training processes of a machine; on CPU a process, not a GPU; null: all GPUs of this machine"""
    total_training_steps: int = Field(ge=1)
    """the run ends after this step"""
    save_freq: int
    """steps between two checkpoints; zero or less: no checkpoints"""
    save_best: bool
    """also keep the checkpoint with the highest success on the held-out tasks, whatever its step"""
    on_full_disk: Literal["stop", "continue"]
    """what a run does when a checkpoint does not fit on the disk; `continue`: it trains without saving, and says so"""
    test_freq: int
    """steps between two validations; zero or less: no validation during training"""
    val_before_train: bool
    """validate before the first step; a run that resumes does so only where that is missing"""
    val_only: bool
    """evaluate the latest checkpoint of `run_dir` and stop; the result is written to `<run_dir>/evaluations/<time>`;
    with `trainer.resume_mode=disable` the model as it is before training"""
    critic_warmup: int = Field(ge=0)
    """the policy is trained from this step on; before it only the critic is"""
    logger: Annotated[list[Logger], BeforeValidator(_as_list)]
    """verl's logging backends, for example `[tensorboard,wandb]` (without `WANDB_API_KEY` wandb works offline; `wandb
    sync` uploads later)"""
    resume_mode: Literal["auto", "disable", "resume_path"]
    """what a run starts from; `auto`: the latest checkpoint in `run_dir`; `disable`: step 0, and earlier results are
    moved aside; `resume_path`: `trainer.resume_from_path`"""
    resume_from_path: str | None = Field(min_length=1)
    """a checkpoint: the folder `global_step_N`"""
    default_local_dir: str = Field(min_length=1)
    """folder of the checkpoints"""
    max_actor_ckpt_to_keep: int | None = Field(ge=1)
    """latest checkpoints that are kept, policy and critic together; an older one is deleted when the next is complete;
    null: all"""
    max_critic_ckpt_to_keep: int | None = Field(ge=1)
    """the same number: a checkpoint is deleted as a whole"""
