"""`python -m opendalle` is `opendalle`."""

from opendalle.cli.app import main

if __name__ == "__main__":
    main()
