"""One file per strategy: what trains, in which phases, at which rate. Importing a file registers it."""
