"""How well the cost models and the simulator agree with a folder of measurements, and whether the bars are met."""
