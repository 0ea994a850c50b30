"""What measures: calibration, uncertainty, description, and what looks wrong about its values."""
