"""Where runs are run: this process, several, or a Dask cluster, in jobs of SLURM too."""
