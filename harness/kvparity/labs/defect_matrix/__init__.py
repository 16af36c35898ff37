"""The defect matrix: every control in a small contract that can show it, under every relation."""
