"""Virtual Neuron Explorer: what the neurons of a vision network stand for, and why."""

import os

# OpenMP's threads wait for each other asleep, not spinning: these would take the cores from
# browsers, other programs, and our own threads, which share them with PyTorch's. It is read when
# torch is loaded, so before anything here imports that.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
