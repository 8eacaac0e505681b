# SPDX-License-Identifier: Apache-2.0
"""`python -m recipe.hiper.credit_lab`; see `command.py`."""

from recipe.hiper.credit_lab.command import main

if __name__ == "__main__":
    main()
