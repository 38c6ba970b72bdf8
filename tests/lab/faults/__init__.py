"""The fault matrix: a service on a lab host, what is done to it, what came of it, the page."""
