"""Frame sources: one file each, opened by ``open_source(uri)``."""
