"""Files and network of the controller: the only room beside host/ and cli/ that does I/O."""
