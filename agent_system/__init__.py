# SPDX-License-Identifier: Apache-2.0
"""The agent: its observations, replies and actions. Does not depend on advantages or trainers."""
