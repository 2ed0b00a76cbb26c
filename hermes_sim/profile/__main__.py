"""`python -m hermes_sim.profile` measures this machine with NumPy or PyTorch alone."""

from __future__ import annotations

import sys

from hermes_sim.profile.command import main

if __name__ == "__main__":
    sys.exit(main())
