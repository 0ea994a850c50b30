"""What the parts say to each other: job kinds, the job server and its client, the meter bridge's records."""
