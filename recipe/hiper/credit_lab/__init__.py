# SPDX-License-Identifier: Apache-2.0
"""Compares estimators on recorded episodes, without training."""
