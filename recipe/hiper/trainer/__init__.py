# SPDX-License-Identifier: Apache-2.0
"""The trainer on verl: batches, token credit, critic, updates."""
