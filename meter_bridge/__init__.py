"""The instrument: reads the meter, stores the trace, serves the live feed."""
