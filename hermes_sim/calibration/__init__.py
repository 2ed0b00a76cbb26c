"""Fits the coefficients of the cost models to measured tables of kernels: `hermes-sim calibrate`."""
