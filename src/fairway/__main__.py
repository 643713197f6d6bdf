"""`python -m fairway`, which torchrun needs."""

import sys

from fairway.cli import main

sys.exit(main())
