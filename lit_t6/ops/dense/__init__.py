"""Attention over dense keys and values in a cache; README.md beside this file has the derivation."""
