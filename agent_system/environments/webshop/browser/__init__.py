# SPDX-License-Identifier: Apache-2.0
"""The shop in a web browser: play an agent's task by hand, or watch recorded episodes."""
