"""For every test: no display is needed, and numeric libraries leave the other cores alone."""

import os

# Read when the libraries are loaded, so they are set before any test module is.
os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
