"""Deep equilibrium graph classifier: atomic features at the fixed point of the potentials' equilibrium cell.

    z = f(z; x),    φ = MLP [pool(W [z ; h]) ; c(x) ; t(x)] + U t(x),    p = softmax(W φ / T)

`h` is the element embedding: a network of element properties, which also covers elements absent from training, plus a
learned vector per element; `c` are composition and density. `t` are optional features that nearly determine some
labels: pore features of a framework, as cavities are beyond the neighbourhood of any atom, and dipole norms of a
molecule. Pooling is intensive, so primitive cell, conventional cell and supercell have equal predictions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import torch
from ase import Atoms
from torch import Tensor, nn

from ase_andersonn.backends import CompileMode, compile_function
from ase_andersonn.labels import ELECTRONIC, LabelSet
from ase_andersonn.nn.blocks import silu
from ase_andersonn.nn.equilibrium_cell import CellWeights, ContractiveCell, Injection
from ase_andersonn.nn.messages import FeatureShape
from ase_andersonn.nn.neighbor_attention import NeighborAttention, Neighborhood, PairSpecies
from ase_andersonn.nn.radial import distances
from ase_andersonn.nn.spherical_harmonics import L_MAX
from ase_andersonn.solvers import Anderson, Segments, Solution, Solver
from ase_andersonn.structures.convert import check_lengths
from ase_andersonn.structures.elements import element_properties
from ase_andersonn.structures.graph import bucket

from .base import ClassifierModel, SolveStatistics
from .features.composition import composition_features, n_composition_features
from .features.pores import n_pore_features, pore_features
from .layers.atom_pooling import AtomPooling, total
from .layers.implicit_cell import CellSolver, cotangents, equilibrium, spectral_radius
from .layers.standardize import Standardize

if TYPE_CHECKING:
    from ase_andersonn.structures.samples import Sample, SampleBatch


@dataclass(frozen=True)
class GraphClassifierConfig:
    """Hyperparameters of a `GraphClassifier`.

    Attributes:
        labels: names and thresholds.
        cutoff: Å.
        n_radial: radial functions.
        l_max: highest Legendre polynomial of the angle between two neighbours, 0 to 8.
        n_channels: width of the equilibrium features.
        n_element: width of the element embedding.
        n_edge: width of the radial and species features of a neighbour.
        n_token: width of a neighbour's token after attention.
        n_heads: attention heads, of neighbours and of the readout.
        n_hidden: width of the networks of atoms and of structures.
        n_pooled: width of the pooled features; a multiple of `n_heads`.
        n_features: width of the features, the input of the head.
        n_dipoles: number of dipoles from learned atomic charges and moments as features of molecules; 0 for none.
        pores: whether pore features of frameworks are inputs.
        contraction: γ, the bound on the cell's Lipschitz constant.
        window: window of Anderson acceleration.
        tolerance: relative residual of the equilibrium.
        training_tolerance: the same while training.
        max_steps: largest number of evaluations of the cell.
        dropout: dropout rate of the structures' network and of the learned element vectors in training.

    Raises:
        ValueError: for invalid sizes.
    """

    RENAMED: ClassVar[Mapping[str, str]] = {"voids": "pores"}

    labels: LabelSet = field(default_factory=lambda: ELECTRONIC)
    cutoff: float = 4.5
    n_radial: int = 8
    l_max: int = 2
    n_channels: int = 32
    n_element: int = 32
    n_edge: int = 16
    n_token: int = 32
    n_heads: int = 4
    n_hidden: int = 128
    n_pooled: int = 64
    n_features: int = 64
    n_dipoles: int = 0
    pores: bool = False
    contraction: float = 0.7
    window: int = 5
    tolerance: float = 1e-5
    training_tolerance: float = 1e-3
    max_steps: int = 60
    dropout: float = 0.2

    def __post_init__(self) -> None:
        if not 0.0 < self.cutoff < math.inf:
            raise ValueError(f"cutoff is {self.cutoff} Å; it has to be a positive number.")
        sizes = ("n_radial", "n_channels", "n_element", "n_edge", "n_token", "n_heads", "n_hidden", "n_pooled")
        for name in (*sizes, "n_features", "max_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it has to be at least 1.")
        for name in ("n_edge", "n_token", "n_pooled"):
            if getattr(self, name) % self.n_heads:
                raise ValueError(
                    f"{name} is {getattr(self, name)}; it has to be a multiple of n_heads, {self.n_heads}."
                )
        if not 0 <= self.l_max <= L_MAX:
            raise ValueError(f"l_max is {self.l_max}; it has to be in 0 to {L_MAX}.")
        if self.n_dipoles < 0 or not 0.0 <= self.dropout < 1.0:
            raise ValueError(
                f"n_dipoles is {self.n_dipoles}, dropout {self.dropout}; they have to be at least 0 and in [0, 1)."
            )
        if not min(self.tolerance, self.training_tolerance) > 0.0:
            raise ValueError(
                f"tolerance is {self.tolerance}, {self.training_tolerance} in training; give positive ones."
            )


class GraphClassifier(ClassifierModel):
    """Deep equilibrium graph classifier, see the module.

    Args:
        config: sizes and labels.
        solver: solver of the fixed point and its adjoint; by default, and for models from a file, Anderson acceleration
            with the config's window.

    Attributes:
        solver: the solver; may be replaced at any time.
        adjoint_statistics: statistics of the last backward pass; None before it.
    """

    def __init__(self, config: GraphClassifierConfig, solver: Solver | None = None) -> None:
        super().__init__(config, config.n_features)
        self.solver: Solver = Anderson(config.window) if solver is None else solver
        self.adjoint_statistics: SolveStatistics | None = None
        c, n_element, n_hidden = config.n_channels, config.n_element, config.n_hidden
        properties = torch.tensor(element_properties(), dtype=torch.float32)
        self.properties: Tensor
        self.register_buffer("properties", properties, persistent=False)
        self.element_network = nn.Sequential(
            nn.Linear(properties.shape[1], 64), nn.SiLU(), nn.Linear(64, n_element), nn.SiLU()
        )
        self.learned = nn.Parameter(torch.zeros(len(properties), n_element))
        self.center = nn.Linear(n_element, config.n_edge)
        self.other = nn.Linear(n_element, config.n_edge)
        self.attention = NeighborAttention(
            n_species=0,
            cutoff=config.cutoff,
            n_radial=config.n_radial,
            l_max=config.l_max,
            n_edge=config.n_edge,
            n_token=config.n_token,
            n_heads=config.n_heads,
            n_channels=c,
        )
        self.first = nn.Linear(self.attention.n_features + n_element, n_hidden)
        self.inject = nn.Linear(n_hidden, 2 * c)
        self.cell = ContractiveCell(config.contraction, FeatureShape(c, 0, 0))
        self.pool = AtomPooling(c + n_element, config.n_pooled, config.n_heads)
        self.charges = nn.Linear(c, config.n_dipoles, bias=False) if config.n_dipoles else None
        self.moments = nn.Linear(c, config.n_dipoles, bias=False) if config.n_dipoles else None
        n_composition = n_composition_features()
        n_voids = n_pore_features() if config.pores else 0
        n_telling = config.n_dipoles + n_voids
        n_in = self.pool.n_features + n_composition + n_telling
        self.readout = nn.Sequential(
            nn.Dropout(config.dropout),
            nn.Linear(n_in, n_hidden),
            nn.SiLU(),
            nn.Dropout(config.dropout),
            nn.Linear(n_hidden, config.n_features),
            nn.SiLU(),
            nn.Dropout(config.dropout),
        )
        self.direct = nn.Linear(n_telling, config.n_features, bias=False) if n_telling else None
        self.standardize = Standardize(self.attention.n_features)
        self.composition = Standardize(n_composition)
        self.pores = Standardize(n_voids) if config.pores else None
        self.compile_functions(False)

    def compile_functions(self, mode: CompileMode) -> None:
        """Compile the atoms' networks and the cell, with dynamic shapes."""
        device = self.properties.device
        self._encode = compile_function(self.encode, device=device, mode=mode, dynamic=True)
        self._cell_apply = compile_function(CellWeights.apply, device=device, mode=mode, dynamic=True)
        self._cell_vjp = compile_function(CellWeights.vjp, device=device, mode=mode, dynamic=True)
        self._cotangents = compile_function(cotangents, device=device, mode=mode, dynamic=True)

    # Structures as tensors

    def sample(self, structure: Atoms) -> Sample:
        """See `ClassifierModel.sample`."""
        from ase_andersonn.structures.samples import find_edges, make_sample  # torch_geometric takes a second

        edges = find_edges(structure, self.config.cutoff)
        check_lengths(structure.numbers, edges)
        from_center = structure.positions - structure.positions.mean(0)
        fields = {"composition": composition_features(structure)[None]}
        fields["from_center"] = 0.0 * from_center if structure.pbc.any() else from_center
        if self.config.pores:
            fields["pores"] = pore_features(structure)[None]
        kept = {name: torch.tensor(values, dtype=torch.float32) for name, values in fields.items()}
        return make_sample(structure, edges, dtype=torch.float32, **kept)

    def size(self, sample: Sample) -> tuple[int, int]:
        """See `ClassifierModel.size`."""
        n_atoms = len(sample.numbers)
        return n_atoms, bucket(int(torch.bincount(sample.center, minlength=n_atoms).max()))

    def collate(self, samples: Sequence[Sample]) -> SampleBatch:
        """See `ClassifierModel.collate`."""
        from ase_andersonn.structures.samples import SampleBatch, collate

        graph, fields = collate(samples, dtype=self.learned.dtype, device=self.learned.device)
        return SampleBatch(graph, {name: values.to(self.learned) for name, values in fields.items()})

    @torch.no_grad()
    def calibrate(self, samples: Sequence[Sample]) -> None:
        """Set mean and standard deviation of the inputs of the networks."""
        features = []
        for start in range(0, len(samples), 32):
            batch = self.collate(samples[start : start + 32])
            features.append(self.neighborhood(*self.edge_inputs(batch)[:-1], batch.graph.mask).features)
        self.standardize.fit(torch.cat(features))
        self.composition.fit(torch.cat([s.composition for s in samples]).to(self.learned))
        if self.pores is not None:
            self.pores.fit(torch.cat([s.pores for s in samples]).to(self.learned))

    # The network

    def elements(self) -> Tensor:
        """Embedding of each element [n_elements + 1, n_element]."""
        learned = self.learned
        if self.training and self.config.dropout:  # so that the properties suffice for elements absent from training
            kept = torch.rand(len(learned), 1, device=learned.device) >= self.config.dropout
            learned = learned * kept
        found: Tensor = self.element_network(self.properties) + learned
        return found

    def edge_inputs(self, batch: SampleBatch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Edge vectors, element parts of centers and neighbours, and element embedding of each atom."""
        elements = self.elements()
        center, other = self.center(elements), self.other(elements)
        numbers = batch.graph.numbers
        return batch.graph.vectors, center[numbers], other[numbers][batch.graph.neighbors], elements[numbers]

    def neighborhood(self, vectors: Tensor, center: Tensor, other: Tensor, mask: Tensor) -> Neighborhood:
        """Input of the attention: neighbourhood of each atom."""
        r = distances(vectors, mask)
        return self.attention.of_pairs(r, vectors / r[..., None], PairSpecies(center[:, None], other), mask)

    def encode(self, vectors: Tensor, center: Tensor, other: Tensor, own: Tensor, mask: Tensor) -> Injection:
        """Injection of the geometry into the cell."""
        features, gates = self.neighborhood(vectors, center, other, mask)
        u, v = self.inject(silu(self.first(torch.cat([self.standardize(features), own], -1)))).chunk(2, -1)
        return Injection(u, v, gates)

    def embed(self, batch: SampleBatch) -> Tensor:
        """See `ClassifierModel.embed`."""
        z, own, injection = self.equilibrium(batch)
        system, n_per_system = batch.graph.system, batch.graph.n_per_system
        direct_inputs = []
        if self.config.n_dipoles:
            direct_inputs.append(self.dipoles(z, injection.gates, batch))
        if self.pores is not None:
            direct_inputs.append(self.pores(batch.fields["pores"]))
        pooled = self.pool(torch.cat([z, own], -1), system, n_per_system)
        features: Tensor = self.readout(
            torch.cat([pooled, self.composition(batch.fields["composition"]), *direct_inputs], -1)
        )
        return features if self.direct is None else features + self.direct(torch.cat(direct_inputs, -1))

    def equilibrium(self, batch: SampleBatch) -> tuple[Tensor, Tensor, Injection]:
        """`z*` [n_atoms, n_channels], element embeddings of the atoms [n_atoms, n_element], injection."""
        inputs = self.edge_inputs(batch)
        graph = batch.graph
        injection = self._encode(*inputs, graph.mask)
        solver = CellSolver(
            self.solver,
            self.config.training_tolerance if self.training else self.config.tolerance,
            self.config.max_steps,
            apply=self._cell_apply,
            vjp=self._cell_vjp,
            cotangents=self._cotangents,
            adjoint_solved=self._adjoint_solved,
        )
        segments = Segments(graph.system, graph.n_systems)
        z = equilibrium(injection, self.cell.weights(), graph.neighbors, graph.reverse, segments, solver)
        assert solver.forward is not None
        self.statistics = _statistics(solver.forward)
        return z, inputs[-1], injection

    def _adjoint_solved(self, found: Solution) -> None:
        self.adjoint_statistics = _statistics(found)

    @torch.no_grad()
    def spectral_radius(self, batch: SampleBatch) -> Tensor:
        """Spectral radius `ρ(∂f/∂z)` at the fixed point of each structure [n_systems]."""
        z, _, injection = self.equilibrium(batch)
        segments = Segments(batch.graph.system, batch.graph.n_systems)
        return spectral_radius(z, injection, self.cell.weights(), batch.graph.neighbors, segments)

    def dipoles(self, z: Tensor, gates: Tensor, batch: SampleBatch) -> Tensor:
        """`|Σ_i (q_i − q̄) r_i + m_i|` [n_systems, n_dipoles], `q = C z`, `m_i = M Σ_j (g_ij ∘ z_j) d_ij`.

        In units of the charges times Å; 0 for periodic structures.
        """
        assert self.charges is not None
        assert self.moments is not None
        graph, positions = batch.graph, batch.fields["from_center"]
        system, n = graph.system, graph.n_systems
        charges = self.charges(z)
        mean = total(charges, system, n) / graph.n_per_system[:, None]
        messages = graph.vectors.transpose(1, 2) @ (gates * z[graph.neighbors])
        moments = positions[:, :, None] * (charges - mean[system])[:, None] + self.moments(messages)
        alone = total(positions.abs(), system, n).sum(-1) > 0.0
        sums = total(moments.flatten(1), system, n).view(n, 3, -1) * alone[:, None, None]
        return (sums.square().sum(1) + 1e-6).sqrt()


def _statistics(found: Solution) -> SolveStatistics:
    return SolveStatistics(found.steps, found.residual, found.converged, found.evaluations)
