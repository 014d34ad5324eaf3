"""Asks the same of a model in several places and says where the answers differ.

What is compared with what is in compare.py, where answers come from in
policy_side.py and url_side.py, and what must agree in requirements.py. Behind
`penstock parity`; see docs/parity.md.
"""
