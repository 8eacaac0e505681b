# SPDX-License-Identifier: Apache-2.0
"""Advantage estimators: pure functions of tensors, and the table that the trainer chooses from."""
