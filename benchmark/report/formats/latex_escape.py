"""Escape any text for pdflatex."""

from __future__ import annotations

import unicodedata

from benchmark.core.text import one_line

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_\allowbreak{}",  # long names of methods and data sets may break here
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "'": r"\textquotesingle{}",
    "`": r"\textasciigrave{}",
    "-": r"{-}",  # no ligatures: -- in a name stays two hyphens
    "[": r"{[}",  # never taken for the optional argument of \\
    "]": r"{]}",
    "*": r"{*}",
    "–": "--",
    "—": "---",
    "−": r"\ensuremath{-}",
    "†": r"\textdagger{}",
    "±": r"\ensuremath{\pm}",
    "×": r"\ensuremath{\times}",
    "·": r"\ensuremath{\cdot}",
    "≤": r"\ensuremath{\leq}",
    "≥": r"\ensuremath{\geq}",
    "≈": r"\ensuremath{\approx}",
    "→": r"\ensuremath{\to}",
    "↑": r"\ensuremath{\uparrow}",
    "↓": r"\ensuremath{\downarrow}",
    "½": r"\ensuremath{\frac12}",
    "•": r"\textbullet{}",
    "Δ": r"\ensuremath{\Delta}",
    "…": r"\dots{}",
    "“": "``",
    "”": "''",
    "’": "'",
    "∞": r"\ensuremath{\infty}",
    "∂": r"\ensuremath{\partial}",
    "√": r"\ensuremath{\surd}",
    "ß": r"\ss{}",
    "œ": r"\oe{}",
    "Œ": r"\OE{}",
    "ø": r"\o{}",
    "Ø": r"\O{}",
    "æ": r"\ae{}",
    "Æ": r"\AE{}",
    "ł": r"\l{}",
    "Ł": r"\L{}",
    "²": r"\textsuperscript{2}",
    "ı": r"\i{}",
}
_GREEK = {
    "α": "alpha",
    "β": "beta",
    "γ": "gamma",
    "δ": "delta",
    "ε": "varepsilon",
    "ζ": "zeta",
    "η": "eta",
    "θ": "theta",
    "ι": "iota",
    "κ": "kappa",
    "λ": "lambda",
    "μ": "mu",
    "ν": "nu",
    "ξ": "xi",
    "π": "pi",
    "ρ": "rho",
    "σ": "sigma",
    "τ": "tau",
    "υ": "upsilon",
    "φ": "varphi",
    "χ": "chi",
    "ψ": "psi",
    "ω": "omega",
    "Γ": "Gamma",
    "Θ": "Theta",
    "Λ": "Lambda",
    "Ξ": "Xi",
    "Π": "Pi",
    "Σ": "Sigma",
    "Φ": "Phi",
    "Ψ": "Psi",
    "Ω": "Omega",
}
#: Words of more characters may be broken.
_LONGEST = 16
#: Combining accents and their LaTeX commands.
_ACCENTS = {
    0x300: "`",
    0x301: "'",
    0x302: "^",
    0x303: "~",
    0x304: "=",
    0x306: "u",
    0x307: ".",
    0x308: '"',
    0x30A: "r",
    0x30B: "H",
    0x30C: "v",
    0x327: "c",
    0x328: "k",
}


def escape(text: str) -> str:
    """Escape a text; a character that the fonts lack becomes its code point, such as U+4E2D."""
    words = unicodedata.normalize("NFC", one_line(text)).split(" ")
    return " ".join(_word(word) for word in words)


def _word(word: str) -> str:
    """Escape a word, and allow breaks in a long one, which would run over the next column."""
    pieces = [word[i : i + _LONGEST] for i in range(0, len(word), _LONGEST)]
    return r"\allowbreak{}".join("".join(map(_escape, piece)) for piece in pieces)


def _escape(character: str) -> str:
    if character in _SPECIAL:
        return _SPECIAL[character]
    if character in _GREEK:
        return rf"\ensuremath{{\{_GREEK[character]}}}"
    if character.isascii():
        return character
    decomposed = unicodedata.normalize("NFKD", character)
    if len(decomposed) == 2 and decomposed[0].isascii() and ord(decomposed[1]) in _ACCENTS:
        base = {"i": r"\i", "j": r"\j"}.get(decomposed[0], decomposed[0])
        return rf"\{_ACCENTS[ord(decomposed[1])]}{{{base}}}"
    if decomposed.isascii():  # ligatures, full-width letters, superscript digits
        return "".join(map(_escape, decomposed))
    return rf"\texttt{{U+{ord(character):04X}}}\allowbreak{{}}"
