"""`python -m regsvc` is `regsvc`."""

from regsvc.cli import main

main()
