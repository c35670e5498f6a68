"""One operator per file, each as `OPERATOR`; `operators.registry` finds them here.

To add one: copy the shortest neighbour, write its rule for a block and its declaration. Arithmetic is float32 with
separate multiplications and additions (a fused one rounds differently in vector bodies and tails, which would make
bits depend on where a block ends); statistics are float64.
"""
