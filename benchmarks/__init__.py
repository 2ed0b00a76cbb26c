"""How fast the simulator is: fixed workloads on fixed hardware, run with `make bench`."""
