"""Formats of the tables: text, LaTeX, Markdown, CSV and JSON."""
