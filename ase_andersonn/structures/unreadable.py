"""Why a file of structures cannot be read, in one line: what is wrong, and what its format is made of."""

import re

EXPECTED = {
    "extxyz": "an XYZ has the number of atoms, a comment, and a line `symbol x y z` for each atom",
    "cif": "a CIF has six _cell_ lengths and angles and a loop of _atom_site_ positions of chemical elements",
    "vasp": "a POSCAR has a comment, a scale, three cell vectors, symbols, their numbers, Direct or Cartesian, and a "
    "position for each atom",
    "sdf": "an SDF has three lines of title, the numbers of atoms and bonds, and a line `x y z symbol` for each atom",
    "gromacs": "a GRO has a title, the number of atoms, a line for each atom, and the box",
    "json": "a JSON holds structures as pymatgen or ASE write them",
}
"""By ASE's name of the format."""
WORDS = {
    r"could not convert string to float: (.*)": r"\1 stands where a number is expected",
    r"invalid literal for int\(\) with base \d+: (.*)": r"\1 stands where a whole number is expected",
    r"'(\w+)' is not a valid Element": r"there is no element '\1'",
}
"""Texts of Python and pymatgen, and what they mean in a file of structures."""
PYTHON = re.compile(
    r"broadcast|ufunc|array|inhomogeneous|unpack|out of range|assign tuple|reshape|attribute|object|argument|NoneType|"
    r"buffer is smaller|axis|iterable|subscript|index|not supported between|required positional"
)
"""What only the author of a program can read."""
MISSING = "a line or a value is missing, impossible, or of another form than expected"


def why_unreadable(error: Exception, form: str = "") -> str:
    """What is wrong with a file, from the error that reading it raised.

    Args:
        error: of the reader.
        form: ASE's name of the format, where it is known.
    """
    if isinstance(error, StopIteration) or isinstance(error.__cause__, StopIteration):
        return "it ends within a frame."
    text = re.sub(r"^(ase|pymatgen)[\w.]*: ", "", str(error).strip().partition("\n")[0])
    if isinstance(error, KeyError) and re.fullmatch(r"'[A-Z]\w{0,2}'", text):
        return _with_form(f"there is no element {text}", form)
    for pattern, meaning in WORDS.items():
        if found := re.fullmatch(pattern, text):
            return _with_form(found.expand(meaning), form)
    if isinstance(error, ValueError | OSError | EOFError | RuntimeError) and text and not PYTHON.search(text):
        return text.rstrip(".") + "."
    return _with_form(MISSING, form)


def _with_form(text: str, form: str) -> str:
    return f"{text}; {EXPECTED[form]}." if form in EXPECTED else f"{text}."
