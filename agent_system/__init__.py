# SPDX-License-Identifier: Apache-2.0
"""The agent: what it sees, says and does. Knows nothing of advantages or trainers."""
