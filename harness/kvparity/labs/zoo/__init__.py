"""The defect zoo: every control in a small place where it can live, under every relation."""
