# SPDX-License-Identifier: Apache-2.0
"""The CPU profile's model: a small Qwen2 that was taught to act by a scripted expert before any reinforcement learning."""
