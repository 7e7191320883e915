"""Extensive deep neural networks on grids: spin lattices and density images, the energy a sum over tiles."""
