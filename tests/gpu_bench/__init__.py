"""`make bench-gpu`: kernel tests on a GPU, then one table of what the paged engine reaches.

Weights are random and no file is fetched: a `config.json` in shapes/ is all there
is of a model, because speed depends on nothing else. Each engine measures each
shape in a process of its own, so that one's memory, graphs or crash are not
another's. Percentages are of a roofline whose bandwidth and arithmetic were
measured on the same GPU a moment before.
"""
