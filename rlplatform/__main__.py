"""`python -m rlplatform …`: the command line, also where only the source tree has been shipped, as in a Ray job."""

from rlplatform.cli import main

if __name__ == "__main__":
    main()
