"""The conformance program in Python: what ``peers/*/bin/conformance`` is in the other languages.

It uses lahja_capn's public names; ``watching`` says where they do not suffice.
"""
