"""Properties of structures by any ASE calculator, one a file, and what the command line shows of many answers."""
