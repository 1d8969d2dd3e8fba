"""What a study has found: tables, figures, and pages of TensorBoard."""

from lit_t6.sweeps.report.command import sweep_report
from lit_t6.sweeps.report.findings import Findings

__all__ = ["Findings", "sweep_report"]
