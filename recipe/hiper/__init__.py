# SPDX-License-Identifier: Apache-2.0
"""HiPER: one model plans and executes, and Hierarchical Advantage Estimation credits each kind of decision."""
