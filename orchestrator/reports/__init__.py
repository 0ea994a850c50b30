"""Tables, figures, prose and reports of a campaign, made from what `orchestrator.domain` calculates."""
