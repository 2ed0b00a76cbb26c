"""Fits the coefficients of the cost models to measured tables of kernels: `python -m hermes_sim.calibration`."""
