# SPDX-License-Identifier: Apache-2.0
"""Full-text search of the catalogue: BM25 with the tokens, scores and order of Lucene 9."""
