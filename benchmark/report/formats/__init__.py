"""How tables are written down: text, LaTeX, Markdown, CSV and JSON."""
