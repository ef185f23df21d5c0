"""The HTML page of an audit: the verdict, its evidence, and illustrations."""

from __future__ import annotations

from benchmark.auditing.audit import Audit
from benchmark.auditing.figures import draw
from benchmark.auditing.sheets import sheets
from benchmark.report.html.parts import document, figures_part, sheet_part, text


def page(audit: Audit) -> str:
    """Return an audit as one self-contained HTML document."""
    effects, *illustrations = draw(audit)
    tables = "".join(sheet_part(sheet, 2) for sheet in sheets(audit)[1:])
    limits = "".join(f"<li>{text(limit)}</li>" for limit in audit.verdict.limits)
    title = f"Audit of {audit.model}"
    body = (
        f"<h1>{text(title)}</h1><p>on {text(audit.data)}</p><main>"
        f"<p><b>{text(audit.verdict.sentence)}</b></p><ul>{limits}</ul>"
        f"{figures_part([effects])}{tables}{figures_part(illustrations)}</main>"
    )
    return document(title, body)
