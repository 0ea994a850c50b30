"""Expert statistics from calibration text: what the experts do before anybody cuts."""
