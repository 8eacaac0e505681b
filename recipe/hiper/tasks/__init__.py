# SPDX-License-Identifier: Apache-2.0
"""Tasks of each environment family: checks, preparation, panels, data set."""
