"""`python -m agent`: the same as the `blobedge` command."""

from agent.cli import main

if __name__ == "__main__":
    main()
