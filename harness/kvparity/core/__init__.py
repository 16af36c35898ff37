"""What every room uses: bits, random numbers, torch's switches, processes. Knows no subject."""
