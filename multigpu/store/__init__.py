"""Files and network of the controller: the only room beside host/ and cli.py that does I/O."""
