"""What acts on a call: each file is one plugin, in the shape that yours would have."""
