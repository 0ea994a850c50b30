"""The mathematics of the lab: pure functions over records; no clocks, files, networks or databases."""
