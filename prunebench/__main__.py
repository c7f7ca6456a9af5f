"""`python -m prunebench`, and with it torchrun and accelerate launch."""

import sys

from prunebench.cli import main

if __name__ == "__main__":
    sys.exit(main())
