"""`python -m harness`, for a debugger: `python -m pdb -m harness rerun STUDY TRIAL`."""

from harness.cli import main

if __name__ == "__main__":
    main()
