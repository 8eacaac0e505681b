# SPDX-License-Identifier: Apache-2.0
"""The published verl on CPU: real Ray, real FSDP2 over gloo, real vLLM (its CPU build), no file of verl or vLLM edited.

Useful without the rest of this repository:

    VERL_PLATFORM=cpu python -m verl_plugins.cpu.main_ppo <verl's own overrides>

`plugin` is what verl's `verl.plugins` entry point loads in every process: it registers the CPU platform and the vLLM
replica and imports nothing heavy. `require_plugin` checks that this really happened, because verl swallows the errors
of plugins at DEBUG level. Everything else is imported where it is needed:

- `engines`: FSDP engines registered for the device "cpu";
- `workers`: verl's workers, with a gloo process group and a time limit on the weight sync;
- `replica`, `vllm_worker`: the vLLM server and the reload of weights inside it;
- `trainer`: verl's synchronous trainer on these workers.
"""
