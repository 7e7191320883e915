"""Other engines that run the package's potentials, one a file; each needs its engine installed."""
