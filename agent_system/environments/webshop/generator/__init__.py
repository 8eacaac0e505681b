# SPDX-License-Identifier: Apache-2.0
"""A generated catalogue in the format of WebShop's published files."""
