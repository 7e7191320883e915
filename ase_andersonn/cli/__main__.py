"""`python -m ase_andersonn.cli` is the `andersonn` command."""

from .main import main

main()
