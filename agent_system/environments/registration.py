# SPDX-License-Identifier: Apache-2.0
"""Registers the environments of this project with Gymnasium.

This module imports Gymnasium inside the function, because Gymnasium calls it as a plugin while it is itself imported.
"""

from __future__ import annotations


def register_environments() -> None:
    """Register ``hiper/ALFWorld-v0``, ``hiper/WebShop-v0`` and ``hiper/TextCraft-v0``. May be called again."""
    from gymnasium.envs.registration import register, registry

    entry_points = {
        "hiper/ALFWorld-v0": "agent_system.environments.alfworld.env:ALFWorldEnv",
        "hiper/WebShop-v0": "agent_system.environments.webshop.env:WebShopEnv",
        "hiper/TextCraft-v0": "agent_system.environments.textcraft.env:TextCraftEnv",
    }
    for env_id, entry_point in entry_points.items():
        if env_id not in registry:
            register(id=env_id, entry_point=entry_point)
