"""Before a campaign runs: spec, matrix, servings, schedule, timeouts, planner, dry run."""
