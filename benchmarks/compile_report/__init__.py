"""What a GPU's compiler makes of each kernel: registers, spills, occupancy and widths of loads."""
