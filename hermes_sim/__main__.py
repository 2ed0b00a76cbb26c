"""`python -m hermes_sim` is `hermes-sim`."""

from __future__ import annotations

from hermes_sim.cli import main

if __name__ == "__main__":
    main()
