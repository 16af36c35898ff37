"""A run as one HTML file that opens offline: everything in it comes from the run folder."""
