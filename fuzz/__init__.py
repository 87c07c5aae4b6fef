"""Coverage-guided fuzzing: `make fuzz`.

Rule of this package: a target is a module with one function, `check(data)`, that returns for any
bytes whatever. What it lets pass is in its docstring; any other exception is a finding.

`tests/test_fuzz.py` runs all targets on all inputs that are kept in `fuzz/corpus/`.
"""
