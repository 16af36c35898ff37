"""What changed between two runs: results, and what they rest on."""
