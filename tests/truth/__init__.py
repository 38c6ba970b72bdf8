"""What is known to be true of captured outputs of real machines, one module per kind of output.

Each module holds `TRUTH`: file name as in the index -> a function that takes the file's path and
asserts. The files are read in place, where they lie beside the checkout.
"""
