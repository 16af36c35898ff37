"""Small faults planted in the files that decide verdicts, and the tests that die (ci/mutants)."""
