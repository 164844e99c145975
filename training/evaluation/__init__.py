"""How good a bundle is: one command, one page, one file of figures."""
