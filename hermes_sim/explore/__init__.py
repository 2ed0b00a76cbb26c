"""Many runs together: grids of scenarios, run side by side into one table; studies, their figures and findings."""
