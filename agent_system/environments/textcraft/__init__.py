# SPDX-License-Identifier: Apache-2.0
"""TextCraft: items are crafted from others by the recipes of the published package `textcraft`."""

SETTING = (
    "the TextCraft crafting game, where items that cannot be crafted can be taken, all others are crafted in several "
    'steps, and a material such as "planks" in a command stands for every item of that name, such as "oak planks"'
)
"""Completes "You act in ..." in the full prompts."""
