"""From a voltammogram to its posterior: networks, their training, and exact re-weighting."""
