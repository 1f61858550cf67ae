"""`python -m foretune` is the same as `foretune`."""

from foretune.cli import main

if __name__ == "__main__":
    main()
