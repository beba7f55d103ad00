"""What happens in the cell: waveforms, transport, kinetics, fouling, and the record of it."""
