"""Ablation studies: many trainings from one YAML file."""

from lit_t6.sweeps.cells import Cell, cells_of
from lit_t6.sweeps.command import fit_command
from lit_t6.sweeps.reading import typed_settings
from lit_t6.sweeps.study import Study, load_study

__all__ = ["Cell", "Study", "cells_of", "fit_command", "load_study", "typed_settings"]
