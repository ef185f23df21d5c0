"""LaTeX tables (booktabs, siunitx) that compile under pdflatex whatever the names contain."""

from __future__ import annotations

from collections.abc import Sequence

from benchmark.report.formats.escape import escape
from benchmark.report.formats.numbers import (
    DASH,
    Footnotes,
    bounds,
    clean,
    decimals_of,
    head_line,
    method_label,
    needs_label,
    percent,
)
from benchmark.report.scores import Value
from benchmark.report.tables import Table

#: The file is a document of its own and can also be \input into another one, whose preamble then loads the packages.
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


def latex_document(tables: Sequence[Table], title: str, spread: str = "sd") -> str:
    """All tables in one file that compiles alone and can be \\input."""
    ascii_title = clean(title).encode("ascii", "replace").decode()
    return HEADER.format(title=ascii_title) + "\n".join(latex_table(t, spread) for t in tables) + FOOTER


def latex_table(table: Table, spread: str = "sd") -> str:
    """One floating table: caption above, S columns, footnotes below it."""
    notes = Footnotes()
    general = notes.marks(table.notes)
    decimals = decimals_of(table)
    rows = []
    for row in table.rows:
        cells = [latex_cell(value, decimals, spread, notes.marks(value.notes)) for value in row.values]
        label = escape(method_label(row)) + _superscript(notes.marks(row.notes))
        rows.append(" & ".join([label, escape(needs_label(row)), *cells]) + r" \\")
    lines = [
        r"\begin{table}[htbp]",
        r"\centering\footnotesize",
        rf"\caption{{{' '.join(map(escape, table.caption))}{_superscript(general)}}}",
        r"\par\smallskip\sisetup{separate-uncertainty=true,table-align-uncertainty=false}",
        rf"\begin{{tabular}}{{@{{}}{_stub(table)}{_specification(table, decimals, spread)}@{{}}}}",
        r"\toprule",
        *_heads(table),
        r"\midrule",
        *rows,
        r"\bottomrule",
        r"\end{tabular}",
    ]
    if notes.texts:
        listed = [rf"{_superscript(letter)}\,{escape(note)}." for letter, note in notes.listed()]
        lines += [r"\par\smallskip", rf"\parbox{{0.95\linewidth}}{{\raggedright\scriptsize {' '.join(listed)}}}"]
    return "\n".join([*lines, r"\end{table}", ""])


def _heads(table: Table) -> list[str]:
    heads = [column.title for column in table.columns]
    tall = max(map(len, heads), default=1)
    lines = []
    for level in range(tall):
        stub = ["method", "needs"] if level == tall - 1 else ["", ""]
        words = [f"{{{escape(head_line(head, level, tall))}}}" for head in heads]
        lines.append(" & ".join([*stub, *words]) + r" \\")
    return lines


def _stub(table: Table) -> str:
    """The two text columns: as wide as their words where these are short, else wrapped."""
    text = (max((len(label(row)) for row in table.rows), default=0) for label in (method_label, needs_label))
    return "".join(
        "l" if longest <= most else f"{_RAGGED}p{{{most * 1.7:.0f}mm}}"
        for longest, most in zip(text, (26, 20), strict=True)
    )


def _specification(table: Table, decimals: int, spread: str) -> str:
    """One S column each, wide enough for its numbers; plain centred columns where intervals are printed."""
    if spread == "interval":
        return "c" * len(table.columns)
    columns = ""
    for i in range(len(table.columns)):
        estimates = [row.values[i].estimate for row in table.rows if i < len(row.values)]
        negative = any(e.value is not None and e.value < 0 for e in estimates)
        widest = max((_uncertainty(e.sd, decimals) for e in estimates if e.sd is not None), key=len, default="")
        columns += f"S[table-format={'-' if negative else ''}3.{decimals}{f'({len(widest)})' if widest else ''}]"
    return columns


def latex_cell(value: Value, decimals: int, spread: str, marks: str) -> str:
    """``93.2(4)``, which siunitx prints as 93.2 ± 0.4; braces keep what is not a number out of its parser."""
    estimate = value.estimate
    if estimate.value is None:
        return f"{{{escape(DASH)}{_superscript(marks)}}}"
    number = percent(estimate.value, decimals)
    edges = bounds(value, decimals if spread == "interval" else 0)
    if edges and (spread == "interval" or estimate.sd is None):
        signed = [rf"\ensuremath{{{text}}}" for text in (number, *edges)]
        return rf"{{{signed[0]} [{signed[1]}, {signed[2]}]{_superscript(marks)}}}"
    if spread == "interval":
        return rf"{{\ensuremath{{{number}}}{_superscript(marks)}}}"
    tail = f"({_uncertainty(estimate.sd, decimals)})" if estimate.sd is not None else ""
    return number + tail + _superscript(marks)


def _uncertainty(sd: float, decimals: int) -> str:
    """The ± in units of the last digit: 0.43 points with one decimal is ``4``, 12.3 points is ``123``."""
    return str(round(float(percent(sd, decimals)) * 10**decimals))


def _superscript(marks: str) -> str:
    return rf"\textsuperscript{{{marks}}}" if marks else ""
