"""The campaign: journal, runner, benchmarks, EPI, API, dashboard, reports."""
