"""Why a run takes its time, and what would help: measured by running it again with more of one thing."""
