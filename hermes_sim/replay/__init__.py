"""Measured serving runs, replayed in the simulator and compared."""
