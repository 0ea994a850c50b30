"""What every process of the lab speaks: records, job protocol, artifacts, checkpoint formats, surgery."""
