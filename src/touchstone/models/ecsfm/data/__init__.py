"""Where voltammograms come from: the simulated family, files of chunks, and measured records."""
