"""`python -m hermes_sim.calibration DATA_FOLDER [DEVICES_FOLDER] [--write]`: fit, print the errors, write the files."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from hermes_sim.calibration.run import calibrate

DEVICES_FOLDER = Path(__file__).resolve().parents[2] / "hardware_profiles" / "devices"


def main() -> None:
    """Print one line per fit: errors on the shapes that were fitted, and on those that were not."""
    parser = argparse.ArgumentParser(prog="python -m hermes_sim.calibration", description=main.__doc__)
    parser.add_argument("data_folder", type=Path)
    parser.add_argument("devices_folder", type=Path, nargs="?", default=DEVICES_FOLDER)
    parser.add_argument("--write", action="store_true", help="put the coefficients into the device files")
    arguments = parser.parse_args()
    sys.stdout.write(
        f"{'device':15s} {'kernel':18s} {'':8s} {'median':>7s} {'mean':>7s} {'p90':>7s} {'bias':>7s} points\n"
    )
    for report in calibrate(arguments.data_folder, arguments.devices_folder, write=arguments.write):
        for part, errors in (("fitted", report.fitted), ("held out", report.held_out)):
            sys.stdout.write(
                f"{report.device:15s} {report.kernel:18s} {part:8s} {errors.median_frac:7.1%} {errors.mean_frac:7.1%}"
                f" {errors.p90_frac:7.1%} {errors.bias_frac:+7.1%} {errors.num_points:6d} {report.values}\n"
            )
            sys.stdout.flush()


if __name__ == "__main__":
    main()
