# SPDX-License-Identifier: Apache-2.0
"""Episodes as verl's agent loop plays them: one episode, one training sample per turn."""
