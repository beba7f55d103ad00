"""Electrochemical sensing: voltammetry, and biofouling as the mismatch."""
