"""Steps as traced programs: torch.export and torch.compile of decode and of prefill."""
