"""`python -m forestay`: the command line."""

from forestay.cli import main

if __name__ == "__main__":
    main()
