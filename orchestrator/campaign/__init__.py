"""The campaign: spec, runner, steps."""
