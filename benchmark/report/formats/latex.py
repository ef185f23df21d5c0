r"""Tables in LaTeX with booktabs, which fit a column, a page and a slide.

A table that fits a column is a ``table``, a wider one a ``table*``. One that is too wide even for a
page is divided into panels, one below the other. What fonts of a document make too wide all the
same, such as those of beamer, is scaled down by ``\ShortcutBedFit``, so that no box is overfull.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from benchmark.core.text import one_line
from benchmark.report.formats.grid import (
    Cell,
    Grid,
    grid_of_sheet,
    grid_of_table,
    grids_of,
)
from benchmark.report.formats.latex_escape import escape
from benchmark.report.formats.latex_width import (
    COLUMN,
    GAP,
    MOST_NOTES,
    PAGE,
    column_widths,
    note_lines,
    panels_of,
    parts_of,
    stub_widths,
)
from benchmark.report.formats.report_format import REPORT_FORMATS, ReportFormat
from benchmark.report.tables.numbers import head_line
from benchmark.report.tables.report_table import Report
from benchmark.report.tables.results_table import Table
from benchmark.report.tables.sheet import Sheet

#: Folder of the files of single tables.
FOLDER = "tables"
#: Packages that a document must load.
PACKAGES = r"\usepackage[T1]{fontenc} \usepackage{textcomp,array,booktabs,graphicx}"

#: Head of the file of all tables, which is a document and can also be \input into another one.
HEADER = r"""% Tables of {title}.
% Compile this file as it is, or \input it, or a single table from the folder {folder}, into a
% document whose preamble has:
%   {packages}
\makeatletter
\ifx\@nodocument\relax
  \let\ShortcutBedEnd\relax
\else
  \documentclass{{article}}
  \usepackage[T1]{{fontenc}}
  \IfFileExists{{lmodern.sty}}{{\usepackage{{lmodern}}}}{{}}
  \usepackage{{textcomp,array,booktabs,graphicx}}
  \usepackage[a4paper,margin=25mm]{{geometry}}
  \def\ShortcutBedEnd{{\end{{document}}}}
  \begin{{document}}
\fi
\makeatother
"""
#: Commands of the tables. A document may define \ShortcutBedNotes itself, such as to omit notes.
COMMANDS = r"""\makeatletter
\@ifundefined{ShortcutBedBox}{\newsavebox{\ShortcutBedBox}\newdimen\ShortcutBedTallest}{}
\@ifundefined{ShortcutBedFit}{%
  \ifdefined\insertframenumber % a slide, which has no room for notes
    \providecommand{\ShortcutBedNotes}[1]{}%
    \providecommand{\ShortcutBedStyle}{\setbeamerfont{caption}{size=\scriptsize}\footnotesize}%
    \newcommand{\ShortcutBedShare}{.55}%
    \@ifundefined{table*}{\newenvironment{table*}[1][]{\begin{table}}{\end{table}}}{}%
  \else
    \providecommand{\ShortcutBedNotes}[1]{\par\smallskip
      \begin{minipage}{\linewidth}\raggedright\scriptsize #1\par\end{minipage}}%
    \providecommand{\ShortcutBedStyle}{\footnotesize}%
    \newcommand{\ShortcutBedShare}{.85}%
  \fi
  % a smaller table where it is wider than the line, or taller than its share of the page
  \newcommand{\ShortcutBedFit}[1]{%
    \ShortcutBedTallest=\ShortcutBedShare\textheight
    \divide\ShortcutBedTallest by #1
    \ifnum#1>1 % what stands between panels
      \advance\ShortcutBedTallest by -\medskipamount
      \advance\ShortcutBedTallest by -\lineskip
    \fi
    \ifdim\wd\ShortcutBedBox>\linewidth
      \sbox{\ShortcutBedBox}{\resizebox{\linewidth}{!}{\usebox{\ShortcutBedBox}}}%
    \fi
    \ifdim\dimexpr\ht\ShortcutBedBox+\dp\ShortcutBedBox\relax>\ShortcutBedTallest
      \sbox{\ShortcutBedBox}{\resizebox*{!}{\ShortcutBedTallest}{\usebox{\ShortcutBedBox}}}%
    \fi
    \usebox{\ShortcutBedBox}}%
}{}
\makeatother
"""
#: Floats after which a document begins a page, since LaTeX keeps only some that wait for a place.
_FLUSHED = 10
_RAGGED = r">{\raggedright\arraybackslash}"
FOOTER = "\n\\ShortcutBedEnd\n"
#: A number, and what stands beside it: a spread, an interval, or a sign of what it is.
_NUMBER = re.compile(r"(?P<value>[−+]?\d[\d,]*(?:\.\d+)?)(?P<rest>(?: ± .*| \[.*)?)")


@REPORT_FORMATS.register
class Latex(ReportFormat):
    """Floating tables of booktabs in a document that compiles alone, and a file for each table."""

    name = "latex"
    file_name = "tables.tex"

    def report(self, report: Report) -> str:
        sweep = report.sweep
        return latex_document(grids_of(report), sweep.title, sweep.notes, report.command)

    def files(self, report: Report) -> dict[str, str]:
        return latex_files(grids_of(report), report.command)

    def sheets(
        self, sheets: Sequence[Sheet], records: Sequence[dict[str, Any]] | None = None
    ) -> str:
        return latex_document([grid_of_sheet(sheet) for sheet in sheets], "published tables")


def latex_document(
    grids: Sequence[Grid], title: str, notes: Sequence[str] = (), command: str = ""
) -> str:
    r"""Return a document of all tables, which can also be \input into another document.

    Args:
        grids: The tables.
        title: Title in the comment at the head of the file.
        notes: Notes of the sweep, at the end.
        command: Command that made the report, for a comment; empty for none.
    """
    floats = [_float(part) for grid in grids for part in parts_of(grid)]
    for i in range(_FLUSHED - 1, len(floats), _FLUSHED):
        floats[i] += "\\clearpage\n"
    return (
        HEADER.format(title=_ascii(title), folder=FOLDER, packages=PACKAGES)
        + _origin(command)
        + COMMANDS
        + "\n".join(floats)
        + "".join(f"\n\\par\\noindent Note: {escape(note)}\n" for note in notes)
        + FOOTER
    )


def latex_files(grids: Sequence[Grid], command: str = "") -> dict[str, str]:
    r"""Return a file for each table, to be \input, by its path; a long table has several."""
    head = f"% \\input this file into a document whose preamble has:\n%   {PACKAGES}\n"
    files: dict[str, str] = {}
    for grid in grids:
        bare = re.sub(r"\([^)]*\)", "", grid.name.lower())
        name = re.sub(r"[^a-z0-9.]+", "_", bare).strip("_.")[:80] or "table"
        unique = name
        number = 1
        while f"{FOLDER}/{unique}.tex" in files:
            number += 1
            unique = f"{name}_{number}"
        for part, content in enumerate(parts_of(grid), start=1):
            path = f"{FOLDER}/{unique}{f'_part_{part}' if part > 1 else ''}.tex"
            files[path] = head + _origin(command) + COMMANDS + _float(content)
    return files


def _origin(command: str) -> str:
    """Return a comment with the command that made the report."""
    return f"% Made by: {_ascii(command)}\n" if command else ""


def _ascii(text: str) -> str:
    return one_line(text).encode("ascii", "replace").decode()


def latex_table(table: Table, spread: str = "sd") -> str:
    """Return the results of one data set as floating tables."""
    return latex_grid(grid_of_table(table, spread))


def latex_sheet(sheet: Sheet) -> str:
    """Return a sheet as floating tables."""
    return latex_grid(grid_of_sheet(sheet))


def latex_grid(grid: Grid) -> str:
    """Return a table as one float, or several if it has very many rows."""
    return "\n".join(map(_float, parts_of(grid)))


def _float(grid: Grid) -> str:
    panels = panels_of(grid)
    widest = max(map(_width, panels))
    environment = "table" if widest <= COLUMN else "table*"
    notes = [rf"{_superscript(letter)}\,{escape(note)}." for letter, note in grid.footnotes]
    notes += map(escape, grid.remarks)
    lines = [
        rf"\begin{{{environment}}}[htbp]",
        r"\centering\ShortcutBedStyle",
        rf"\caption{{{escape(grid.caption)}{_superscript(grid.caption_marks)}}}",
        r"\par\smallskip",
    ]
    for number, panel in enumerate(panels):
        lines += [r"\par\medskip"] if number else []
        lines += _tabular(panel)
        lines.append(rf"\ShortcutBedFit{{{len(panels)}}}")
    end = [rf"\end{{{environment}}}", ""]
    if note_lines(grid) > MOST_NOTES:  # they would not fit a page together with the table
        notes.insert(0, escape(f"{grid.title}:"))
        end.append(rf"\ShortcutBedNotes{{{' '.join(notes)}}}")
    elif notes:
        lines.append(rf"\ShortcutBedNotes{{{' '.join(notes)}}}")
    return "\n".join([*lines, *end])


def _width(grid: Grid) -> float:
    widths = [*stub_widths(grid), *column_widths(grid)[grid.stub :]]
    return sum(widths) + GAP * (len(widths) - 1)


def _tabular(grid: Grid) -> list[str]:
    """Return the lines of one panel, which is scaled down if it does not fit."""
    columns = [*map(_name_column, stub_widths(grid), column_widths(grid))]
    columns += ["r@{}l"] * (len(grid.heads) - grid.stub)
    physical = 2 * len(grid.heads) - grid.stub
    rows = []
    for row in grid.rows:
        if len(row) == 1:
            heading = rf"\textit{{{escape(row[0].text)}}}"
            rows.append(rf"\multicolumn{{{physical}}}{{@{{}}l@{{}}}}{{{heading}}} \\")
            continue
        cells = [_name(cell) if i < grid.stub else latex_cell(cell) for i, cell in enumerate(row)]
        rows.append(" & ".join(cells) + r" \\")
    return [
        r"\setlength{\tabcolsep}{4pt}%",
        r"\begin{lrbox}{\ShortcutBedBox}%",
        rf"\begin{{tabular}}{{@{{}}{''.join(columns)}@{{}}}}",
        r"\toprule",
        *_heads(grid),
        r"\midrule",
        *rows,
        r"\bottomrule",
        r"\end{tabular}%",
        r"\end{lrbox}%",
    ]


def _name_column(width: float, natural: float) -> str:
    """Return the specification of a column of names, which wraps long names."""
    return "l" if width >= natural else rf"{_RAGGED}p{{{width / PAGE:.2f}\linewidth}}"


def _heads(grid: Grid) -> list[str]:
    tall = max(map(len, grid.heads), default=1)
    lines = []
    for level in range(tall):
        cells = []
        for i, head in enumerate(grid.heads):
            text = escape(head_line(head, level, tall))
            cells.append(text if i < grid.stub else rf"\multicolumn{{2}}{{c}}{{{text}}}")
        lines.append(" & ".join(cells) + r" \\")
    return lines


def _name(cell: Cell) -> str:
    return escape(cell.text) + _superscript(cell.footnotes)


def latex_cell(cell: Cell) -> str:
    """Return the two parts of a number, such as ``93.2&${}\\pm{}$0.4``, aligned between them."""
    marks = _superscript(",".join(filter(None, (escape(cell.mark), cell.footnotes))))
    found = _NUMBER.fullmatch(cell.text)
    if found is None:
        text = escape(cell.text)
        return rf"\multicolumn{{2}}{{c}}{{{_bold(text, cell)}{marks}}}"
    rest = found["rest"]
    shown = escape(rest.lstrip())
    if rest.startswith(" ± "):
        shown = rf"\ensuremath{{{{}}\pm{{}}}}{escape(rest[3:])}"
    elif rest:
        shown = rf"\,{shown}"
    return f"{_bold(escape(found['value']), cell)} & {_bold(shown, cell)}{marks}"


def _bold(text: str, cell: Cell) -> str:
    return rf"\textbf{{{text}}}" if cell.is_best and text else text


def _superscript(marks: str) -> str:
    return rf"\textsuperscript{{{marks}}}" if marks else ""
