"""Files that outlive a run: artefacts, reports and settings, checked when read."""
