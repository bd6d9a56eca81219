"""The Prefect server: started and ended on this machine (serving), set up (pool, automations), examined (doctor)."""
