# SPDX-License-Identifier: Apache-2.0
"""WebShop: products, search, pages, reward and the environment, in one process and without a JVM."""
