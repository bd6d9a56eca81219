"""One thin task a stage: name what it reads, let the store decide, show it in Prefect."""
