"""Measured tables of kernels: found by their columns, read into one form, a table per operator."""

from hermes_sim.measured.read import read_frame, read_kernels, read_tables
from hermes_sim.measured.tables import KernelTables, Skipped, TableProblem

__all__ = ["KernelTables", "Skipped", "TableProblem", "read_frame", "read_kernels", "read_tables"]
