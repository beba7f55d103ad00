"""The models, and the vocabulary that they share."""
