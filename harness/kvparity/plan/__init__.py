"""What a contract asks for, as values: schedules, paths, units of work, cases. Knows no model."""
