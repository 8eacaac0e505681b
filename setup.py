# SPDX-License-Identifier: Apache-2.0
"""Packaging. Dependencies are pinned in requirements/ (see README.md); this file declares what is importable."""

from pathlib import Path

from setuptools import find_packages, setup

setup(
    name="hiper",
    version="0.1.0",
    description="Trainer for plan-execute language-model agents with Hierarchical Advantage Estimation",
    long_description=(Path(__file__).parent / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11,<3.13",
    packages=find_packages(include=["agent_system*", "recipe*", "verl_plugins*"]),
    package_data={
        "recipe.hiper": ["config/**/*.yaml"],
        "recipe.hiper.credit_lab": ["*.html.jinja"],
        "agent_system.rollout": ["*.yaml"],
        "agent_system.environments.webshop.browser": ["templates/*"],
    },
    entry_points={
        "verl.plugins": ["cpu = verl_plugins.cpu.plugin"],
        "gymnasium.envs": ["__root__ = agent_system.environments.registration:register_environments"],
    },
)
