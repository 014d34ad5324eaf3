"""`python -m engines.process SOCKET PARENT` is the child; only its parent starts it."""

import sys

from engines.process.child import main

if __name__ == "__main__":
    main(sys.argv[1:])
