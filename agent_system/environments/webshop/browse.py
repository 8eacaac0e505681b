# SPDX-License-Identifier: Apache-2.0
"""The command `python -m agent_system.environments.webshop.browse`."""

from __future__ import annotations

from agent_system.environments.webshop.browser.app import main

if __name__ == "__main__":
    main()
