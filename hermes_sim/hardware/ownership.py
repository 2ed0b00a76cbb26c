"""What a device costs that is bought instead of rented."""

from __future__ import annotations

from typing import Final

from pydantic import Field

from hermes_sim.core.schema import Description, NonNegativeFloat, Seconds, Usd

HOURS_PER_YEAR: Final = 8766.0
SECONDS_PER_HOUR: Final = 3600.0


class Ownership(Description):
    """Purchase price, spread evenly over the time of use; electricity comes on top, at the cluster's price."""

    capital_usd: Usd = Field(alias="capital", gt=0.0)
    """Of the device with its share of server, network and building."""
    lifetime_s: Seconds = Field(alias="lifetime", gt=0.0)
    """Until it is written off, `4 y`."""
    upkeep_frac_per_year: NonNegativeFloat = 0.0
    """Repair, staff and space, a year, over the capital."""

    @property
    def usd_per_h(self) -> float:
        """Of every hour, used or not; without electricity."""
        per_hour = SECONDS_PER_HOUR / self.lifetime_s + self.upkeep_frac_per_year / HOURS_PER_YEAR
        return self.capital_usd * per_hour
