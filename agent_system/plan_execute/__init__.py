# SPDX-License-Identifier: Apache-2.0
"""The plan-execute protocol, its prompts and an episode's memory. Standard library only."""
