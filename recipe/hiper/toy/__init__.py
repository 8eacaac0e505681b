# SPDX-License-Identifier: Apache-2.0
"""A tiny text game on which a plan-execute agent learns in seconds, to compare estimators over many seeds.

game.py       the house: rules and texts            tables.py   every text of the game, read once by the real parser
agent.py      policy and critic, small networks     play.py     many episodes at once, scripted and learned
arms.py       the estimators that are compared      train.py    PPO
"""
