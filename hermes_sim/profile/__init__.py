"""Measurements of this machine: kernels on its CPU or GPU, and a small serving loop, as tables of the public format.

`hermes-sim profile cpu | gpu | engine`, or `python -m hermes_sim.profile ...`, which needs no more than NumPy (and
PyTorch for a GPU). Nothing here imports the simulator.
"""

from __future__ import annotations
