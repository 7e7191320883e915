"""Metadata of disorder, charge and spin in a structure, as written by ASE, pymatgen and others. Models do not use them:
disorder is an error, since a model needs one atom per site; charge and spin give a warning.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers

OCCUPANCY_TOLERANCE = 1e-3
"""Deviation of an occupancy from 1 above which a site is disordered."""
OCCUPANCIES = ("occupancy", "occupancies")
"""Keys of `atoms.info` (CIF) and of `atoms.arrays` (PDB, prismatic)."""
CHARGES = ("charge", "total_charge")
SPINS = ("spin", "total_spin")
"""Keys of a multiplicity or a number of unpaired electrons; 0 and 1 are closed-shell for either."""
MULTIPLICITIES = ("spin_multiplicity", "multiplicity")
SIGN_LAST = re.compile(r"(\d+(?:\.\d*)?)?\s*([+-])")


@dataclass(frozen=True)
class ElectronicState:
    """Charge and spin given in a structure.

    Attributes:
        charge: total charge, e.
        charge_note: place of the charge, such as `atoms.info["charge"]`; empty without a charge.
        spin_note: place of the spin.
    """

    charge: float = 0.0
    charge_note: str = ""
    spin_note: str = ""

    def ignored(self) -> Iterator[str]:
        """A warning for each of these that a model without charges and spins ignores."""
        if self.charge_note:
            yield f"the model knows no charges: {self.charge_note} nothing, results are those of neutral structures."
        if self.spin_note:
            yield (
                f"the model knows no spins: {self.spin_note} nothing, results are those of the spin states it was "
                "trained on."
            )


def check_metadata(atoms: Atoms, *, reads_magmoms: bool = False) -> ElectronicState:
    """Charge and spin given in a structure.

    Args:
        atoms: the structure.
        reads_magmoms: whether the model's energy depends on the initial magnetic moments.

    Raises:
        ValueError: for a disordered structure, see `check_order`.
    """
    check_order(atoms)
    charge, charge_key = _charge(atoms)
    return ElectronicState(charge, charge_key, "" if reads_magmoms else _spin(atoms, charge))


def check_order(atoms: Atoms) -> None:
    """Raise ValueError, with the key to change, for sites with mixed or partial occupancy.

    ASE gives such a site one atom of its most common species, and writes the occupancies to `atoms.info["occupancy"]`.
    These remain if the atoms are changed later, and have to be deleted then.
    """
    for place, notes in (("info", atoms.info), ("arrays", atoms.arrays)):
        for key in OCCUPANCIES:
            if key in notes and (partial := _partial(notes[key], atoms)):
                kinds = "1 kind of sites is" if len(partial) == 1 else f"{len(partial)} kinds of sites are"
                raise ValueError(
                    f'atoms.{place}["{key}"]: {kinds} disordered '
                    f"({'; '.join(partial[:3])}); a model needs one atom per site. Make the structure ordered first, "
                    "for example with pymatgen's OrderDisorderedStructureTransformation. If every site has one "
                    f'full atom by now, del atoms.{place}["{key}"].'
                )


def share_of(value: Any) -> float:
    """Occupancy as a number: `?` and `.` in a CIF mean the default of 1; an uncertainty in brackets is dropped.

    Raises:
        ValueError: if it is not a number.
    """
    if isinstance(value, float | int):
        return float(value)
    text = "" if value is None else str(value).strip().strip("'\"")
    if text in ("", "?", "."):
        return 1.0
    try:
        return float(re.sub(r"\(\d*\)$", "", text))
    except ValueError:
        raise ValueError(
            f"the occupancy {text!r} is not a number; 1 is a full site, and so are ? and . in a CIF."
        ) from None


def _partial(note: Any, atoms: Atoms) -> list[str]:
    """Descriptions of the sites with mixed or partial occupancy in an entry; empty for other entries."""
    if isinstance(note, str) and note.lstrip().startswith(("{", "[")):
        try:
            note = json.loads(note)
        except ValueError:
            return []
    if isinstance(note, Mapping):
        found = {str(site): _disorder(str(site), shares) for site, shares in note.items() if _is_site(site, shares)}
        found = {site: text for site, text in found.items() if text}
        kinds = {str(kind) for kind in np.unique(atoms.arrays.get("spacegroup_kinds", []))} if found else set()
        return [text for site, text in found.items() if not (kinds and site.isdigit() and site not in kinds)]
    if isinstance(note, Sequence | np.ndarray) and not isinstance(note, str):
        if len(note) and all(isinstance(entry, Mapping) for entry in note):
            return [text for entry in note if (text := _disorder("", entry))]
        return _partial_atoms(note, atoms)
    return []


def _is_site(key: Any, shares: Any) -> bool:
    """Whether an item has ASE's form {kind: {symbol: share}}, or {symbol or kind: share}."""
    return isinstance(shares, Mapping) or str(key).isdigit() or key in atomic_numbers


def _disorder(site: str, shares: Any) -> str:
    """Description of the occupancies of a site; empty for one full atom."""
    shares = shares if isinstance(shares, Mapping) else {site: shares}
    try:
        values = {str(symbol): share_of(share) for symbol, share in shares.items()}
    except ValueError as error:
        return str(error).partition(";")[0]
    present = [share for share in values.values() if share != 0.0]
    if len(present) == 1 and abs(present[0] - 1.0) <= OCCUPANCY_TOLERANCE:
        return ""
    return ", ".join(f"{symbol} {share:g}" for symbol, share in values.items()) or f"nothing at {site}"


def _partial_atoms(note: Any, atoms: Atoms) -> list[str]:
    """Atoms with partial occupancy in a list per atom; lists of zeros or with values above 1 are no occupancies."""
    try:
        numeric = isinstance(note, np.ndarray) and note.dtype.kind in "fiu" and note.ndim == 1
        shares = note if numeric else np.array([share_of(share) for share in note])
    except ValueError:
        return []
    if len(shares) != len(atoms) or not shares.any() or shares.max() > 1.0 + OCCUPANCY_TOLERANCE:
        return []
    return [
        f"atom {i}, {atoms.symbols[i]} {shares[i]:g}" for i in np.flatnonzero(~(shares >= 1.0 - OCCUPANCY_TOLERANCE))
    ]


def total_charge(atoms: Atoms) -> float:
    """Total charge given in a structure, e; 0 where none is given."""
    return _charge(atoms)[0]


def _charge(atoms: Atoms) -> tuple[float, str]:
    """Total charge, e, and its place, also for partial charges with a sum of zero."""
    for key in CHARGES:
        if key in atoms.info and (charge := _as_charge(atoms.info[key])):
            return charge, f'atoms.info["{key}"] changes'
    noted = getattr(atoms, "charge", None)  # as pymatgen's AseAtomsAdaptor sets it
    if noted is not None and (charge := _as_charge(noted)):
        return charge, "atoms.charge changes"
    if not atoms.has("initial_charges"):
        return 0.0, ""
    charges = atoms.get_initial_charges()
    return float(charges.sum()), "the initial charges change" if charges.any() else ""


def _as_charge(value: Any) -> float:
    """Charge in e from a number, atomic charges, or a text such as "-1" or "2+"; 0 for other texts ("neutral")."""
    if isinstance(value, str) and (written := SIGN_LAST.fullmatch(value.strip())):
        return float(written[2] + (written[1] or "1"))
    try:
        charge = float(value) if isinstance(value, str) else float(np.sum(value))
    except (TypeError, ValueError):
        return 0.0
    return charge if math.isfinite(charge) else 0.0


def _spin(atoms: Atoms, charge: float) -> str:
    """Place of a spin other than that of a closed shell or of a single unpaired electron; charge in e."""
    info = atoms.info
    for key in SPINS:
        if key in info and not np.isin(_numbers(info[key]), (0.0, 1.0)).all():
            return f'atoms.info["{key}"] changes'
    named = {f'atoms.info["{key}"]': info[key] for key in MULTIPLICITIES if key in info}
    named["atoms.spin_multiplicity"] = getattr(atoms, "spin_multiplicity", None)
    for name, value in named.items():
        if value is not None and (_numbers(value) > 1 + round(float(atoms.numbers.sum()) - charge) % 2).any():
            return f"{name} changes"
    if not atoms.has("initial_magmoms"):
        return ""
    moments = atoms.get_initial_magnetic_moments()
    if (moments != moments[:1]).any():  # equal moments are the default of `ase.build.bulk` for nickel
        return "that the initial magnetic moments differ changes"
    if moments.any() and not atoms.pbc.any():  # as `ase.build.molecule` has them for O2
        return "the initial magnetic moments change"
    return ""


def _numbers(value: Any) -> Any:
    """Finite numbers of an entry, as an array that may be empty."""
    try:
        numbers = np.atleast_1d(np.asarray([] if value is None else value, dtype=np.float64))
    except (TypeError, ValueError):
        return np.zeros(0)
    return numbers[np.isfinite(numbers)]
