# SPDX-License-Identifier: Apache-2.0
"""Text environments behind Gymnasium's interface. Importing this package registers their ids."""

from agent_system.environments.registration import register_environments

register_environments()
