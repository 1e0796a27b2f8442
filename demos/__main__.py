"""``python -m demos``: see play.py."""

import sys

from demos.play import main

sys.exit(main(sys.argv[1:]))
