"""Solving and differentiating an equilibrium potential: energies, forces, stress and gradients of weights."""
