# SPDX-License-Identifier: Apache-2.0
"""The configuration: overrides, validation, typed settings, and what depends on the machine."""
