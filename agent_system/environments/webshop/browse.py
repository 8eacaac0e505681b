# SPDX-License-Identifier: Apache-2.0
"""The shop in a web browser: play an agent's task by hand, or view recorded episodes turn by turn.

    python -m agent_system.environments.webshop.browse --data-dir shop
    python -m agent_system.environments.webshop.browse --data-dir shop --episodes runs/mine/episodes/*.jsonl

The server listens on 127.0.0.1 only. Press Ctrl-C to stop it.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from agent_system.environments.webshop.browser.app import create_app
from agent_system.environments.webshop.browser.episodes import EpisodeList
from agent_system.environments.webshop.browser.server import LocalServer
from agent_system.environments.webshop.browser.sessions import ShopSetting
from agent_system.environments.webshop.goals import Goals, Split
from agent_system.errors import HiPERError


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True, help="folder of the prepared shop")
    parser.add_argument("--goals", choices=[goals.value for goals in Goals], default=Goals.SYNTHETIC.value)
    parser.add_argument("--split", choices=[split.value for split in Split], default=Split.FIXED.value)
    parser.add_argument("--seed", type=int, default=0, help="seed of the imitated worker, for --split legacy")
    parser.add_argument("--show-attributes", action="store_true", help="items have the page Attributes")
    parser.add_argument("--port", type=int, default=8080, help="0 for any free port")
    parser.add_argument("--episodes", type=Path, nargs="+", default=[], metavar="FILE.jsonl", help="episodes to view")
    arguments = parser.parse_args()
    setting = ShopSetting(
        arguments.data_dir,
        Goals(arguments.goals),
        Split(arguments.split),
        arguments.seed,
        arguments.show_attributes,
    )
    try:
        episodes = EpisodeList(arguments.episodes)
        server = LocalServer(create_app(setting, episodes), arguments.port)
    except HiPERError as error:
        sys.exit(f"error: {error}")
    recorded = f", {len(episodes)} recorded episodes" if arguments.episodes else ""
    print(f"{len(setting.shop):,} products{recorded}: {server.address} (press Ctrl-C to stop)", flush=True)
    try:
        server.run()
    except KeyboardInterrupt:
        print("\nstopped")


if __name__ == "__main__":
    main()
