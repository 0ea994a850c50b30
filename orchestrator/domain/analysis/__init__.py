"""After the runs: comparisons, intervals, curves, hypotheses of a whole campaign."""
