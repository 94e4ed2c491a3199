"""From an offline dataset to the arrays and tensors that methods compute with."""
