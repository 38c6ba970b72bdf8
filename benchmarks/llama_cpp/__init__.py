"""Parts of the comparison with a real llama.cpp: shapes, files without data, the program itself."""
