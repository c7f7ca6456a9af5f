"""Published tables as grids of runs: read, planned, run through the multirun, and laid beside what was published."""
