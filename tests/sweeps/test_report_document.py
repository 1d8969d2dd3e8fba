from lit_t6.sweeps.report.document import document
from lit_t6.sweeps.report.findings import findings
from lit_t6.sweeps.report.gathering import gather

from .reported import begun


def test_what_a_completed_trial_lacks_stands_in_the_report_and_the_trial_counts(tmp_path):
    study, _, folder = begun(tmp_path, {"base": [1.0, 1.5]}, {"base": {}}, seeds=[0, 1])
    records = dict(gather(study, folder, None).records)
    assert "remark" not in document(findings(study, records), [], {})
    records["base/seed-1"] = {**records["base/seed-1"], "remark": "checkpoints not saved: last.ckpt"}
    said = document(findings(study, records), [], {})
    assert "## Trials that completed, with a remark\n\n* base/seed-1: checkpoints not saved: last.ckpt\n" in said
    assert "did not complete" not in said
    assert "1.2500" in said
