# SPDX-License-Identifier: Apache-2.0
"""Rows without padding on GPUs, with nothing but PyTorch: `actor_rollout_ref.model.external_lib=verl_plugins.packed`.

verl imports this in every process that loads the model, before it looks for an engine.
"""

import verl_plugins.packed.attention
import verl_plugins.packed.engines  # noqa: F401  (both register what they bring)
