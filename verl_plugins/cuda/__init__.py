# SPDX-License-Identifier: Apache-2.0
"""The published verl on NVIDIA GPUs: a weight sync with a time limit and sockets of its own for each run.

- `workers`: verl's worker that sends the weights, and where the reference policy is kept;
- `replica`: the vLLM server that receives them.
"""
