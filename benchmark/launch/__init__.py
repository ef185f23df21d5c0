"""Claiming runs, running each in a process of its own, and trying again what was killed."""
