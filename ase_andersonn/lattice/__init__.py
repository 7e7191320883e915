"""Extensive deep neural networks on spin lattices and density images, with the energy as a sum over tiles."""
