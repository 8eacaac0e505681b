# SPDX-License-Identifier: Apache-2.0
"""What is checked before a run starts Ray: whether this machine, or a running Ray cluster, can carry the run."""
