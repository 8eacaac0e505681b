# SPDX-License-Identifier: Apache-2.0
"""Plugins for the published verl that are useful without the rest of this repository."""
