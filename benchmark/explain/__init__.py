"""Explanations, one per file; each can stand inside a loss where it says so."""
