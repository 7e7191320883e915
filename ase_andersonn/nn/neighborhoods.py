"""Neighbourhoods of atoms, padded to one number of neighbours."""

from typing import NamedTuple

from torch import Tensor


class Neighborhoods(NamedTuple):
    """Edges and species of a set of atoms (rows); padded places have a zero vector and are masked."""

    vectors: Tensor
    """Edge vectors from the atom to each neighbour [n_rows, n_neighbors, 3], Å."""
    species: Tensor
    """Species index of each atom [n_rows]."""
    neighbor_species: Tensor
    """Species index of each neighbour [n_rows, n_neighbors]."""
    mask: Tensor
    """True where a neighbour exists [n_rows, n_neighbors]."""

    @property
    def pair(self) -> tuple[Tensor, Tensor]:
        """Index of each edge's pair of species in a table [n_species, n_species]."""
        return self.species[:, None], self.neighbor_species
