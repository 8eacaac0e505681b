# SPDX-License-Identifier: Apache-2.0
"""The errand game: a small text game on which a plan-execute agent learns in seconds, to compare estimators over seeds.

game.py       the house: rules and texts            tables.py   every text of the game, read once by the real parser
agent.py      policy and critic, small networks     play.py     many episodes at once, scripted and learned
variants.py   the estimators that are compared      train.py    PPO
oracle.py     a tabular process with exact values and an exact policy gradient
"""
