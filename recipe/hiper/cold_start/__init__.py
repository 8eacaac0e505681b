# SPDX-License-Identifier: Apache-2.0
"""The CPU profile's model: a small Qwen2 that imitates scripted players, before any reinforcement learning."""
