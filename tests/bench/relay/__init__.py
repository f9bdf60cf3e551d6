"""The parts of the `relay` bench: raw clients that cost little, the relays it compares, and their brokers."""
