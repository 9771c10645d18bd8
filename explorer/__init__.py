"""Virtual Neuron Explorer: what the neurons of a vision network stand for, and why."""
