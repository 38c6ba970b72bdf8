"""The runtimes' real parsers, fed with every command line that we render (`make test-parsers`)."""
