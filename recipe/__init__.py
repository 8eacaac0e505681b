# SPDX-License-Identifier: Apache-2.0
"""Training recipes on top of verl."""
