"""Training of clickmask networks: data, simulated clicks, losses and the loop."""
