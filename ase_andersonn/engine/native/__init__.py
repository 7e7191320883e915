"""Kernels in C++ of the parts of the engine that take most of the time, built on the machine that runs them."""
