"""The HTML page of an audit: the verdict, its evidence, and illustrations."""

from __future__ import annotations

from benchmark.auditing.audit import Audit
from benchmark.auditing.figures import draw
from benchmark.auditing.sheets import sheets
from benchmark.report.html.page import POLICY
from benchmark.report.html.parts import figures_part, sheet_part, text
from benchmark.report.html.style import CSS


def page(audit: Audit) -> str:
    """Return an audit as one self-contained HTML document."""
    effects, *illustrations = draw(audit)
    tables = "".join(sheet_part(sheet, 2) for sheet in sheets(audit)[1:])
    limits = "".join(f"<li>{text(limit)}</li>" for limit in audit.verdict.limits)
    title = f"Audit of {audit.model}"
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        f"<title>{text(title)}</title><style>{CSS}</style></head><body>"
        f"<h1>{text(title)}</h1><p>on {text(audit.data)}</p><main>"
        f"<p><b>{text(audit.verdict.sentence)}</b></p><ul>{limits}</ul>"
        f"{figures_part([effects])}{tables}{figures_part(illustrations)}"
        "</main></body></html>\n"
    )
