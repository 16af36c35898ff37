"""What two records, caches or kernels are asked: one file or folder for each relation."""
