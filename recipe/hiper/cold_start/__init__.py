# SPDX-License-Identifier: Apache-2.0
"""The CPU profile's model: a small Qwen2 that a scripted expert taught to act, before any reinforcement learning."""
