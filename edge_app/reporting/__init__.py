"""A run, or several replicates, as one document that opens anywhere."""
