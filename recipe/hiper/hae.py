# SPDX-License-Identifier: Apache-2.0
"""Hierarchical Advantage Estimation under its public name; see `recipe.hiper.estimators.hae`."""

from recipe.hiper.estimators.hae import HAEConfig, HierarchicalAdvantages, hierarchical_advantages

__all__ = ["HAEConfig", "HierarchicalAdvantages", "hierarchical_advantages"]
