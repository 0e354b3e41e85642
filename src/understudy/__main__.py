"""`python -m understudy`, which is also what `torchrun -m understudy` starts."""

from understudy.cli import main

if __name__ == "__main__":
    main()
