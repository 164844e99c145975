"""Commands: declare options and delegate, nothing more."""
