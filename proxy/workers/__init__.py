"""Several processes behind one address: one accepts and supervises, the others serve."""
