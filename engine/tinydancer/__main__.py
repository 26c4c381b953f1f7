"""`python -m tinydancer` is the command `tinydancer`."""

from tinydancer.cli import main

main()
