"""What runs on the device."""

import os

# Threads that wait should sleep, not spin: where other programs want the same cores, spinning
# makes a network up to ten times slower. Read when torch loads, so it is set before any import.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
