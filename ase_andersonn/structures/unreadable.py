"""One-line explanations of structure files that cannot be read: the error, and the contents of the format."""

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
"""Contents of a format by ASE's name of it."""
WORDS = {
    r"could not convert string to float: (.*)": r"\1 stands where a number is expected",
    r"invalid literal for int\(\) with base \d+: (.*)": r"\1 stands where a whole number is expected",
    r"'(\w+)' is not a valid Element": r"there is no element '\1'",
}
"""Error messages of Python and pymatgen, and their meaning for a structure file."""
PYTHON = re.compile(
    r"broadcast|ufunc|array|inhomogeneous|unpack|out of range|assign tuple|reshape|attribute|object|argument|NoneType|"
    r"buffer is smaller|axis|iterable|subscript|index|not supported between|required positional"
)
"""Error messages that are meaningful to programmers only."""
MISSING = "a line or a value is missing, impossible, or of another form than expected"


def why_unreadable(error: Exception, form: str = "") -> str:
    """Explanation of an exception that was raised while reading a file.

    Args:
        error: the exception.
        form: ASE's name of the format, if it is known.
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
