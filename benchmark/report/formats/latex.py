"""Tables in LaTeX with booktabs and siunitx, which compile under pdflatex for all names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmark.core.text import one_line
from benchmark.report.formats.latex_escape import escape
from benchmark.report.formats.report_format import REPORT_FORMATS, ReportFormat
from benchmark.report.tables.numbers import (
    DASH,
    Footnotes,
    Printer,
    bounds,
    head_line,
    notes_of,
    percent,
    printer,
    shows_bounds,
)
from benchmark.report.tables.report_table import Report
from benchmark.report.tables.results_table import Table
from benchmark.report.tables.sheet import Sheet
from benchmark.report.tables.value import Spread, Value

#: Head of the file, which is a document and can also be \input into another one.
HEADER = r"""% Tables of {title}.
% Compile this file as it is, or \input it into a paper whose preamble has:
%   \usepackage[T1]{{fontenc}} \usepackage{{textcomp,array,booktabs,siunitx}}
\makeatletter
\ifx\@nodocument\relax
  \let\ShortcutBedEnd\relax
\else
  \documentclass{{article}}
  \usepackage[T1]{{fontenc}}
  \IfFileExists{{lmodern.sty}}{{\usepackage{{lmodern}}}}{{}}
  \usepackage{{textcomp,array,booktabs,siunitx}}
  \usepackage[a4paper,landscape,margin=15mm]{{geometry}}
  \def\ShortcutBedEnd{{\end{{document}}}}
  \begin{{document}}
\fi
\makeatother
"""
_RAGGED = r">{\raggedright\arraybackslash}"
FOOTER = "\n\\ShortcutBedEnd\n"


@REPORT_FORMATS.register
class Latex(ReportFormat):
    """Floating tables of booktabs and siunitx in a document that compiles alone."""

    name = "latex"
    file_name = "tables.tex"

    def report(self, report: Report) -> str:
        sweep = report.sweep
        sheets = [*report.sheets, *report.appendix]
        return latex_document(report.tables, sheets, sweep.title, report.spread, sweep.notes)

    def sheets(
        self, sheets: Sequence[Sheet], records: Sequence[dict[str, Any]] | None = None
    ) -> str:
        return latex_document([], sheets, "published tables")


def latex_document(
    tables: Sequence[Table],
    sheets: Sequence[Sheet],
    title: str,
    spread: str = "sd",
    notes: Sequence[str] = (),
) -> str:
    """Return a document of all tables, which can also be \\input into another document.

    Args:
        tables: Tables of results.
        sheets: Further tables, which follow the results.
        title: Title in the comment at the head of the file.
        spread: What is printed beside a value: ``sd``, ``interval`` or ``credible``.
        notes: Notes of the sweep, at the end.
    """
    ascii_title = one_line(title).encode("ascii", "replace").decode()
    return (
        HEADER.format(title=ascii_title)
        + "\n".join([*(latex_table(t, spread) for t in tables), *map(latex_sheet, sheets)])
        + "".join(f"\n\\par\\noindent Note: {escape(note)}\n" for note in notes)
        + FOOTER
    )


def latex_table(table: Table, spread: str = "sd") -> str:
    """Return a floating table with its caption above and its footnotes below."""
    notes = Footnotes()
    general = notes.marks(table.notes)
    show = printer(table, spread)
    widest = 4 if spread == Spread.CREDIBLE else 7
    rows = []
    for row in table.rows:
        cells = [
            latex_cell(value, show, notes.marks(notes_of(value, spread))) for value in row.values
        ]
        label = escape(show.label(row)) + _superscript(notes.marks(row.notes))
        rows.append(" & ".join([label, escape(show.needs(row)), *cells]) + r" \\")
    lines = [
        r"\begin{table}[htbp]",
        r"\centering\footnotesize",
        rf"\caption{{{' '.join(map(escape, table.full_caption(spread)))}{_superscript(general)}}}",
        *([r"\scriptsize\setlength{\tabcolsep}{3pt}"] if len(table.columns) > widest else []),
        r"\par\smallskip\sisetup{separate-uncertainty=true,table-align-uncertainty=false,"
        r"retain-zero-uncertainty=true}",
        rf"\begin{{tabular}}{{@{{}}{_stub(table, show)}{_specification(table, show)}@{{}}}}",
        r"\toprule",
        *_heads([("method",), ("needs",), *(column.title for column in table.columns)]),
        r"\midrule",
        *rows,
        r"\bottomrule",
        r"\end{tabular}",
    ]
    if notes.texts:
        listed = [rf"{_superscript(letter)}\,{escape(note)}." for letter, note in notes.listed()]
        lines += [
            r"\par\smallskip",
            rf"\parbox{{0.95\linewidth}}{{\raggedright\scriptsize {' '.join(listed)}}}",
        ]
    return "\n".join([*lines, r"\end{table}", ""])


def latex_sheet(sheet: Sheet) -> str:
    """Return a sheet as a floating table; long cells are wrapped."""
    longest = [
        max((len(row[i]) for row in sheet.rows if len(row) > 1), default=0)
        for i in range(len(sheet.heads))
    ]
    columns = "".join(
        ("l" if width <= 30 else f"{_RAGGED}p{{{50 if width <= 120 else 110}mm}}")
        if i < sheet.stub
        else "r"
        for i, width in enumerate(longest)
    )
    rows = [
        rf"\multicolumn{{{len(sheet.heads)}}}{{@{{}}l@{{}}}}{{\textit{{{escape(row[0])}}}}} \\"
        if len(row) == 1
        else " & ".join(map(escape, row)) + r" \\"
        for row in sheet.rows
    ]
    notes = [
        rf"\par\smallskip{{\raggedright\scriptsize {escape(note)}\par}}" for note in sheet.notes
    ]
    lines = [
        r"\begin{table}[htbp]",
        r"\centering\footnotesize",
        rf"\caption{{{' '.join(map(escape, [f'{sheet.title}.', *sheet.caption]))}}}",
        r"\par\smallskip",
        rf"\begin{{tabular}}{{@{{}}{columns}@{{}}}}",
        r"\toprule",
        *_heads(sheet.heads),
        r"\midrule",
        *rows,
        r"\bottomrule",
        r"\end{tabular}",
        *notes,
    ]
    return "\n".join([*lines, r"\end{table}", ""])


def _heads(heads: Sequence[Sequence[str]]) -> list[str]:
    tall = max(map(len, heads), default=1)
    return [
        " & ".join(f"{{{escape(head_line(head, level, tall))}}}" for head in heads) + r" \\"
        for level in range(tall)
    ]


def _stub(table: Table, show: Printer) -> str:
    """Return the specification of the name columns, which wrap long names."""
    text = (
        max((len(label(row)) for row in table.rows), default=0)
        for label in (show.label, show.needs)
    )
    return "".join(
        "l" if longest <= most else f"{_RAGGED}p{{{most * 1.7:.0f}mm}}"
        for longest, most in zip(text, (26, 20), strict=True)
    )


def _specification(table: Table, show: Printer) -> str:
    """Return the specification of the number columns, centred if they hold intervals."""
    if shows_bounds(show.spread):
        return "c" * len(table.columns)
    columns = ""
    for i in range(len(table.columns)):
        estimates = [row.values[i].estimate for row in table.rows if i < len(row.values)]
        negative = any(e.value is not None and e.value < 0 for e in estimates)
        widest = max(
            (_uncertainty(e.sd, show.decimals) for e in estimates if e.sd is not None),
            key=len,
            default="",
        )
        sign = "-" if negative else ""
        uncertainty = f"({len(widest)})" if widest else ""
        columns += f"S[table-format={sign}3.{show.decimals}{uncertainty}]"
    return columns


def latex_cell(value: Value, show: Printer, marks: str) -> str:
    """Return a cell such as ``93.2(4)``, which siunitx prints as 93.2 ± 0.4.

    Braces keep cells that are no numbers out of the parser of siunitx.
    """
    estimate = value.shown(show.spread)
    decimals = show.decimals
    with_bounds = shows_bounds(show.spread)
    marks = ",".join(filter(None, (value.mark, marks)))
    if estimate.value is None:
        return f"{{{escape(DASH)}{_superscript(marks)}}}"
    number = percent(estimate.value, decimals)
    edges = bounds(estimate, decimals if with_bounds else 0)
    if with_bounds or (edges and estimate.sd is None):
        if show.spread == Spread.CREDIBLE and estimate.sd is not None:
            number += rf" \pm {percent(estimate.sd, decimals)}"
        bracket = ""
        if edges:
            bracket = rf" [\ensuremath{{{edges[0]}}}, \ensuremath{{{edges[1]}}}]"
        return rf"{{\ensuremath{{{number}}}{bracket}{_superscript(marks)}}}"
    tail = f"({_uncertainty(estimate.sd, decimals)})" if estimate.sd is not None else ""
    return number + tail + _superscript(marks)


def _uncertainty(sd: float, decimals: int) -> str:
    """Return an uncertainty in units of the last decimal: 12.3 points are ``123`` tenths."""
    return str(round(float(percent(sd, decimals)) * 10**decimals))


def _superscript(marks: str) -> str:
    return rf"\textsuperscript{{{marks}}}" if marks else ""
