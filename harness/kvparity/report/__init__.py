"""Reports: pure functions from the run.json document to a form that people read."""
