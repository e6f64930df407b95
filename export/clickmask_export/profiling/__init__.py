"""Latency on the machine at hand: what a person waits for, where it goes, and whether it got worse."""
