"""The run record: one SQLite file per run, and what is exported from it."""
